"""Blocks and schemes: what comes after what, what blocks show, and what each YAML makes of a linear layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import nn

from normbench.config.compose import COMMON
from normbench.config.options import config_dir
from normbench.noise import Dropout
from normbench.norms import BatchNorm, Block, LayerNorm, MeanOnlyBatchNorm, NormScheme, RMSNorm, blocks, uses_batch
from normbench.norms.block import TENSORS, Recorded
from normbench.norms.layer import DynamicTanh, GroupNorm, InstanceNorm
from normbench.norms.schemes import make_scheme
from normbench.norms.weight import weight_norm


def options_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((config_dir() / "norm" / f"{name}.yaml").read_bytes())


def scheme_with(name: str, **changed: Any) -> NormScheme:
    """The scheme of a file of configs/norm, with some of its options changed."""
    options = options_of(name)
    assert changed.keys() <= options.keys()
    options |= changed
    common = {key: options.pop(key) for key in COMMON["norm"] & options.keys()}
    return make_scheme(partial(get_object(options.pop("_target_")), **options), **common)


# ---- blocks


def shown(block: Block, x: torch.Tensor) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    block.observer = lambda name, tensor: seen.update({name: tensor})
    block(x)
    block.observer = None
    return seen


@pytest.mark.parametrize("placement", ["before", "after"])
def test_norm_before_or_after_the_activation(placement):
    linear, norm, x = nn.Linear(4, 3), LayerNorm(3), torch.randn(5, 4)
    block = Block(linear, norm, nn.ReLU(), placement=placement)
    z = linear(x)
    if placement == "before":
        wanted = dict(zip(TENSORS, [z, norm(z), norm(z).relu()], strict=True))
    else:
        wanted = {"linear": z, "activation": z.relu(), "normalized": norm(z.relu())}
    assert torch.equal(block(x), list(wanted.values())[2])
    seen = shown(block, x)
    assert list(seen) == list(wanted)
    assert all(torch.equal(a, b) for a, b in zip(seen.values(), wanted.values(), strict=True))


def test_dropout_comes_last_and_is_not_shown():
    block = Block(nn.Linear(4, 100), None, nn.Sigmoid(), nn.Dropout(0.5))
    seen, y = shown(block, torch.randn(5, 4)), block(torch.randn(5, 4))
    assert (y == 0).float().mean() > 0.3
    assert (seen["activation"] != 0).all()
    assert (block.eval()(torch.randn(5, 4)) != 0).all()


def test_a_tensor_that_equals_another_is_shown_once():
    for norm, activation, names in (
        (None, None, ["linear"]),
        (None, nn.ReLU(), ["linear", "activation"]),
        (LayerNorm(3), None, ["linear", "normalized"]),
    ):
        assert list(shown(Block(nn.Linear(4, 3), norm, activation), torch.randn(5, 4))) == names


def test_blocks_are_found_in_their_order_however_deep():
    inner = nn.Sequential(Block(nn.Linear(2, 2)), nn.ReLU(), Block(nn.Linear(2, 2)))
    model = nn.Sequential(Block(nn.Linear(2, 2)), inner, Recorded())
    assert [name for name, _ in blocks(model)] == ["0", "1.0", "1.2", "2"]


def test_who_uses_the_batch():
    for norm in (BatchNorm(3), MeanOnlyBatchNorm(3), BatchNorm.in_cell(3, 2, "input"), nn.BatchNorm1d(3)):
        assert uses_batch(norm)
    for other in (LayerNorm(3), nn.GroupNorm(1, 3), nn.Linear(3, 3), nn.Dropout(0.5), nn.InstanceNorm2d(3)):
        assert not uses_batch(other)


# ---- schemes


def test_leaving_everything_out_is_the_plain_network():
    block = NormScheme().block(nn.Linear(4, 3), nn.Tanh, dropout=0.25)
    assert (block.norm, block.placement) == (None, "before")
    assert type(block.linear) is nn.Linear
    assert block.linear.bias is not None
    assert (type(block.activation), type(block.dropout), block.dropout.p) == (nn.Tanh, Dropout, 0.25)
    output = NormScheme().block(nn.Linear(4, 3))
    assert (output.activation, output.dropout) == (None, None)


@pytest.mark.parametrize(
    ("norm", "placement", "bias"),
    [
        (BatchNorm, "before", False),  # has its own beta
        (lambda c: BatchNorm(c, affine=False), "before", False),  # subtracts each unit's mean: a bias would be dead
        (LayerNorm, "before", False),
        (lambda c: LayerNorm(c, affine=False), "before", True),  # its mean is over units: a bias for each still matters
        (lambda c: nn.GroupNorm(1, c), "before", False),
        (BatchNorm, "after", True),  # the activation stands between: a bias moves its kink
        (None, "before", True),
        (lambda c: InstanceNorm(c, affine=False), "before", False),  # subtracts each channel's mean, too
        (lambda c: GroupNorm(c, groups=1, affine=False), "before", True),
        (lambda c: GroupNorm(c, groups=3, affine=False), "before", False),  # one channel per group: instance norm
        (lambda c: RMSNorm(c, affine=False), "before", True),
        (DynamicTanh, "before", True),  # moves x within the tanh
    ],
)
def test_the_bias_is_dropped_where_the_norm_makes_it_useless(norm, placement, bias):
    for linear in (nn.Linear(4, 3), nn.Conv2d(4, 3, 3)):
        block = NormScheme(norm=norm, placement=placement).block(linear, nn.ReLU)
        assert (block.linear.bias is not None) == bias
        assert "linear.bias" in dict(block.named_parameters()) or not bias


def test_an_output_layer_is_plain_or_normalised_without_an_activation():
    block = NormScheme(norm=BatchNorm, reparametrize=weight_norm).block(nn.Linear(4, 3), normalize=False)
    assert {name for name, _ in block.named_parameters()} == {"linear.weight", "linear.bias"}
    for placement in ("before", "after"):  # nothing stands between the bias and the norm
        block = NormScheme(norm=BatchNorm, activation=nn.SELU, placement=placement).block(nn.Linear(4, 3))
        assert (type(block.norm), block.activation, block.linear.bias) == (BatchNorm, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placement": "behind"}, r"norm.placement must be before or after \(the activation\): got behind"),
        ({"statistics": "running"}, r"norm\.statistics must be one of ema, .*, batch: got running\."),
        ({"init_images": 1}, r"norm.init_images must be 2 or more, .* got 1"),
        ({"init_images": -1}, r"norm.init_images must be 2 or more, .* got -1"),
    ],
)
def test_a_scheme_of_your_own_is_checked(options, message):
    with pytest.raises(ValueError, match=message):
        NormScheme(**options)


def test_every_number_among_the_options_reaches_the_block_and_the_cell(norm_name):
    for key, default in options_of(norm_name).items():
        if type(default) in (int, float) and key not in COMMON["norm"] | {"gamma"}:
            value = default // 2 if isinstance(default, int) else default / 2
            scheme = scheme_with(norm_name, **{key: value})
            made = [scheme.block(nn.Linear(4, 8))]
            if scheme.recurrent_norm is not None:
                made.append(scheme.recurrent_norm(8, 3, "input"))
            for module in made:
                found = {getattr(part, {"groups": "num_groups"}.get(key, key), None) for part in module.modules()}
                assert value in {one.item() if isinstance(one, torch.Tensor) else one for one in found}, key
    if "affine" in options_of(norm_name):
        plain, learned = (scheme_with(norm_name, affine=on).block(nn.Linear(4, 8)) for on in (False, True))
        counts = [sum(p.numel() for p in block.parameters() if p.requires_grad) for block in (plain, learned)]
        assert counts[1] - counts[0] in (8, 16)  # a bias stays in the linear layer, or goes


def test_options_of_cells_without_affine_and_with_groups():
    assert scheme_with("group", channels_per_group=1).block(nn.Linear(4, 8)).norm.num_groups == 8
    for name in ("batch", "ghost_batch"):
        norm = scheme_with(name, affine=False).recurrent_norm(8, 3, "state")
        assert (norm.weight.requires_grad, norm.bias) == (False, None)
    norm = scheme_with("layer", affine=False).recurrent_norm(8, 3, "state").norm
    assert (norm.weight, norm.bias) == (None, None)


def test_options_that_cells_alone_have():
    for name in ("batch", "ghost_batch"):
        for gamma in (0.75, 1):
            weight = scheme_with(name, gamma=gamma).recurrent_norm(3, 4, "state").weight
            assert torch.equal(weight.detach(), torch.full((3,), float(gamma)))
    for name in ("batch", "mean_only", "weight_mean_only"):
        for per_step, shape in ((True, (4, 3)), (False, (1, 3))):
            assert scheme_with(name, per_step=per_step).recurrent_norm(3, 4, "input").running_mean.shape == shape


def test_options_that_every_scheme_may_have():
    for name in ("none", "weight", "weight_mean_only"):
        assert (scheme_with(name).init_images, scheme_with(name, init_images=500).init_images) == (0, 500)
    scheme = scheme_with("batch", statistics="precise", placement="after")
    assert (scheme.statistics, scheme.placement) == ("precise", "after")
