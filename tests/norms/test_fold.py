"""Folding whole networks, and reasons why there can't be one. Each scheme's blocks are folded by `verify`."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from normbench.norms import BatchNorm, NormScheme, Unfoldable, blocks, fold, weight_norm
from normbench.verify.folding import exported


def trained(network_of, batch_of, norm: str, model: str, *words: str) -> nn.Module:
    """Gains, shifts and running statistics that have left where they start."""
    network = network_of(norm, model, *words, quiet=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    torch.manual_seed(0)
    for step in range(8):
        x, y = batch_of(20, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(2 * x + 1), y).backward()
        optimizer.step()
    return network.eval()


def differences(network: nn.Module, batch_of) -> tuple[float, float]:
    """Largest logit difference in float32 and in float64."""
    found = []
    for dtype in (torch.float32, torch.float64):
        network = network.to(dtype)
        x, _ = batch_of(50, seed=100, dtype=dtype)
        found.append((network(x) - fold(network)[0](x)).abs().max().item())
    return found[0], found[1]


@pytest.mark.parametrize("affine", ["true", "false"])
@pytest.mark.parametrize("norm", ["batch", "batch_renorm", "mean_only", "weight_mean_only", "weight_standardization"])
def test_folded_networks_have_the_same_logits(norm, affine, network_of, batch_of):
    network = trained(network_of, batch_of, norm, "cnn", f"norm.affine={affine}")
    folded, merges = fold(network)
    assert merges
    assert all(getattr(block, "norm", None) is None for _, block in blocks(folded))
    assert not any(parametrize.is_parametrized(module) for module in folded.modules())
    in_32, in_64 = differences(network, batch_of)
    assert in_32 < 1e-4
    assert in_64 < 1e-10


@pytest.mark.parametrize(
    ("norm", "reason"), [("layer", "statistics of the example itself"), ("dynamic_tanh", "keeps no running mean")]
)
def test_it_says_why_not(norm, reason, network_of):
    with pytest.raises(Unfoldable, match=reason):
        fold(network_of(norm, "mlp"))


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet"])
def test_the_result_is_the_network_of_none(model, network_of, batch_of):
    network = trained(network_of, batch_of, "weight_mean_only", model)
    plain = network_of("none", model, quiet=True).eval()
    plain.load_state_dict(fold(network)[0].state_dict())
    x, _ = batch_of(20, seed=100)
    torch.testing.assert_close(plain(x), network(x), rtol=1e-5, atol=1e-5)


def test_the_formula_by_hand():
    block = NormScheme(norm=BatchNorm).block(nn.Linear(2, 1), nn.ReLU).eval()
    with torch.no_grad():
        block.linear.weight.copy_(torch.tensor([[1.0, -2.0]]))
        block.norm.running_mean.fill_(3.0)
        block.norm.running_var.fill_(4.0 - 1e-5)  # the square of 2, with eps
        block.norm.weight.fill_(6.0)
        block.norm.bias.fill_(0.5)
    folded, _ = fold(nn.Sequential(block))
    torch.testing.assert_close(folded[0].linear.weight, torch.tensor([[3.0, -6.0]]))  # gamma / sigma = 3
    torch.testing.assert_close(folded[0].linear.bias, torch.tensor([-8.5]))  # 3 (0 - 3) + 0.5


def test_the_network_itself_is_left_as_it_was(network_of, batch_of):
    network = trained(network_of, batch_of, "weight_mean_only", "mlp").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fold(network)
    fold(network)
    assert network.training
    assert list(before) == list(network.state_dict())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    network(batch_of(20)[0]).sum().backward()


def test_behind_the_activation_it_does_not_fold(network_of, batch_of):
    network = trained(network_of, batch_of, "batch", "mlp", "norm.placement=after")
    with pytest.raises(Unfoldable, match=r"hidden1 can't be folded: the activation stands between it and the layer"):
        fold(network)


def test_a_normalised_output_folds_into_itself_wherever_norms_are(network_of, batch_of, parts_of):
    scheme = parts_of("batch", "mlp", "norm.placement=after").scheme
    net = nn.Sequential(nn.Flatten(), scheme.block(nn.Linear(64, 5))).train()
    net(batch_of(20)[0])
    assert fold(net)[1][0].into == "1"
    assert differences(net.eval(), batch_of)[1] < 1e-12


@pytest.mark.parametrize("norm", ["batch", "weight", "layer"])
def test_recurrent_cells_are_refused(norm, network_of):
    with pytest.raises(Unfoldable, match="cell can't be folded"):
        fold(network_of(norm, "rnn"))


def test_a_plain_recurrent_network_has_nothing_to_fold(network_of):
    assert fold(network_of("none", "rnn"))[1] == []


def test_a_norm_of_torch_folds_too_unless_it_keeps_no_statistics():
    scheme = NormScheme(norm=nn.BatchNorm1d)
    net = nn.Sequential(scheme.block(nn.Linear(3, 4), nn.ReLU)).train()
    net(torch.randn(9, 3))
    x = torch.randn(5, 3)
    torch.testing.assert_close(fold(net)[0](x), net.eval()(x))
    net[0].norm = nn.BatchNorm1d(4, track_running_stats=False)
    with pytest.raises(Unfoldable, match="works with the other examples of a batch in evaluation"):
        fold(net)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_exported_program_gives_the_same_logits_for_any_batch(model, network_of, batch_of):
    folded, _ = fold(trained(network_of, batch_of, "batch", model))
    program = torch.export.load(io.BytesIO(exported(folded, batch_of(1)[0][0]))).module()
    for n in (1, 2, 33):
        x, _ = batch_of(n, seed=n)
        torch.testing.assert_close(program(x), folded(x), rtol=1e-5, atol=1e-6)


def test_parametrizations_of_other_kinds_are_computed_once():
    net = nn.Sequential(NormScheme(reparametrize=weight_norm).block(nn.Linear(3, 2)))
    assert fold(net)[1][0].what == "weight computed once (WeightNorm)"
