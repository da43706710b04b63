"""The residual network: its layers one by one, its parameters counted by hand, and what its additions show."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normbench.models import ResNet
from normbench.norms import BatchNorm, NormScheme, blocks


# With k for 16 channels and n blocks a stage. First convolutions of the stages: k k, 2 k k, 8 k k; all others of a
# stage, 2n - 1 of them, square: k k, 4 k k, 16 k k.
@pytest.mark.parametrize(("depth", "width", "norm"), [(8, 1.0, None), (20, 0.5, BatchNorm)])
def test_parameters(depth, width, norm):
    with torch.device("meta"):
        model = ResNet(NormScheme(norm=norm), (3, 32, 32), 10, depth=depth, width=width)
    k, n = int(16 * width), (depth - 2) // 6
    weights = 9 * (3 * k + (1 + 2 + 8) * k * k + (2 * n - 1) * (1 + 4 + 16) * k * k) + 4 * k * 10
    channels = k + 2 * n * (k + 2 * k + 4 * k)
    assert sum(p.numel() for p in model.parameters()) == weights + channels * (1 if norm is None else 2) + 10
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth


@pytest.mark.parametrize("side", [8, 9])  # 9 -> 5 -> 3: halved sides are rounded up
def test_layers_one_by_one(side):
    torch.manual_seed(0)
    model = ResNet(NormScheme(), (3, side, side), 10, depth=14, width=0.25)
    x = torch.randn(2, 3, side, side)
    h = model.conv.linear(x).relu()
    for stage, features in ((1, 4), (2, 8), (3, 16)):
        for i in (1, 2):
            block = getattr(model, f"stage{stage}block{i}")
            w1, w2 = block.conv1.linear, block.conv2.linear
            stride = 2 if stage > 1 and i == 1 else 1
            branch = F.conv2d(h, w1.weight, w1.bias, stride=stride, padding=1).relu()
            branch = F.conv2d(branch, w2.weight, w2.bias, padding=1)
            shortcut = torch.zeros_like(branch)
            shortcut[:, : h.shape[1]] = h[:, :, ::stride, ::stride]
            h = (branch + shortcut).relu()
            assert h.shape[1] == features
    assert h.shape[2] == -(-side // 4)
    torch.testing.assert_close(model(x), model.output.linear(h.mean((2, 3))))


def test_blocks_in_the_order_of_the_forward_pass(network_of, batch_of):
    model = network_of("batch", "resnet")
    names = ["conv"]
    for stage in (1, 2, 3):
        names += [f"stage{stage}block1.{part}" for part in ("conv1", "conv2", "sum")]
    assert [name for name, _ in blocks(model)] == [*names, "output"]
    seen = []
    for name, block in blocks(model):
        block.observer = lambda tensor, value, name=name: seen.append((name, tensor))
    model(batch_of(4)[0])
    assert list(dict.fromkeys(name for name, _ in seen)) == [*names, "output"]
    shown = {name: [tensor for n, tensor in seen if n == name] for name in names}
    assert shown["stage2block1.conv1"] == ["linear", "normalized", "activation"]
    assert shown["stage2block1.conv2"] == ["linear", "normalized"]  # its activation comes after the addition
    assert shown["stage2block1.sum"] == ["linear", "activation"]


def test_what_an_addition_shows_is_what_goes_on(network_of, batch_of):
    model = network_of("none", "resnet")
    shown, passed = {}, []
    block = model.stage1block1
    block.sum.observer = shown.__setitem__
    block.conv2.register_forward_hook(lambda module, args, output: passed.append(output))
    model.conv.register_forward_hook(lambda module, args, output: passed.append(output))
    model.stage2block1.conv1.register_forward_pre_hook(lambda module, args: passed.append(args[0]))
    model(batch_of(4)[0])
    shortcut, branch, after = passed
    assert torch.equal(shown["linear"], branch + shortcut)
    assert torch.equal(shown["activation"], shown["linear"].relu())
    assert torch.equal(shown["activation"], after)


def test_both_activations_of_a_block_are_the_schemes_and_do_not_change_what_was_shown():
    for scheme, kind in (
        (NormScheme(activation=lambda: nn.ReLU(inplace=True)), nn.ReLU),
        (NormScheme(activation=nn.SELU), nn.SELU),
        (NormScheme(), nn.Tanh),
    ):
        model, shown = ResNet(scheme, (1, 8, 8), 3, width=0.25, activation="tanh"), {}
        block = model.stage1block1
        assert type(block.conv1.activation) is type(block.sum.activation) is kind
        block.sum.observer = shown.__setitem__
        model(torch.randn(4, 1, 8, 8))
        assert (shown["linear"] < 0).any()


def test_a_norm_after_the_activation_stays_before_the_addition_at_the_end_of_a_branch():
    model = ResNet(NormScheme(norm=BatchNorm, placement="after"), (1, 8, 8), 3, width=0.25)
    seen = []
    for name, block in blocks(model.stage1block1):
        block.observer = lambda tensor, value, name=name: seen.append((name, tensor))
    model(torch.randn(4, 1, 8, 8))
    assert seen == [
        ("conv1", "linear"), ("conv1", "activation"), ("conv1", "normalized"),
        ("conv2", "linear"), ("conv2", "normalized"), ("sum", "linear"), ("sum", "activation"),
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [0, 2, 9, 18, -4])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match=rf"model.depth of a resnet is 6n \+ 2 \(8, 14, 20, ...\): got {depth}"):
        ResNet(NormScheme(), (1, 8, 8), 10, depth=depth)


def test_dropout_stands_between_the_convolutions(network_of):
    model = network_of("batch", "resnet", dropout=0.5)
    assert model.stage3block1.conv1.dropout.p == 0.5
    assert model.conv.dropout is model.stage3block1.conv2.dropout is None
