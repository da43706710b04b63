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
from normbench.noise import AlphaDropout, Dropout
from normbench.norms import BatchNorm, Block, LayerNorm, MeanOnlyBatchNorm, NormScheme, RMSNorm, blocks, uses_batch
from normbench.norms.batch_renorm import BatchRenorm
from normbench.norms.block import TENSORS, Recorded
from normbench.norms.ghost_batch import GhostBatchNorm
from normbench.norms.layer import DynamicTanh, GroupNorm, InstanceNorm, LayerNorm2d
from normbench.norms.noisy_batch import NoisyBatchNorm
from normbench.norms.schemes import make_scheme
from normbench.norms.weight import weight_norm


def scheme_with(name: str, **changed: Any) -> NormScheme:
    """The scheme of a file of configs/norm, with some of its options changed."""
    options = yaml.safe_load((config_dir() / "norm" / f"{name}.yaml").read_bytes())
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
        (lambda c: MeanOnlyBatchNorm(c, affine=False), "before", False),
        (LayerNorm, "before", False),
        (lambda c: LayerNorm(c, affine=False), "before", True),  # its mean is over units: a bias for each still matters
        (lambda c: nn.GroupNorm(1, c), "before", False),
        (BatchNorm, "after", True),  # the activation stands between: a bias moves its kink
        (None, "before", True),
        (lambda c: InstanceNorm(c, affine=False), "before", False),  # subtracts each channel's mean, too
        (lambda c: GroupNorm(c, groups=1), "before", False),
        (lambda c: GroupNorm(c, groups=1, affine=False), "before", True),
        (lambda c: GroupNorm(c, groups=3, affine=False), "before", False),  # one channel per group: instance norm
        (RMSNorm, "before", False),
        (lambda c: RMSNorm(c, affine=False), "before", True),
        (lambda c: LayerNorm2d(c, affine=False), "before", True),
        (lambda c: GhostBatchNorm(c, virtual=4, affine=False), "before", False),
        (lambda c: BatchRenorm(c, affine=False), "before", False),
        (lambda c: NoisyBatchNorm(c, affine=False), "before", False),
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


@pytest.mark.parametrize(
    ("name", "norm", "wrapped", "activation", "dropout"),
    [
        ("none", type(None), False, nn.ReLU, Dropout),
        ("batch", BatchNorm, False, nn.ReLU, Dropout),
        ("layer", LayerNorm, False, nn.ReLU, Dropout),
        ("weight", type(None), True, nn.ReLU, Dropout),
        ("weight_mean_only", MeanOnlyBatchNorm, True, nn.ReLU, Dropout),
        ("selu", type(None), False, nn.SELU, AlphaDropout),
        ("group", GroupNorm, False, nn.ReLU, Dropout),
        ("instance", InstanceNorm, False, nn.ReLU, Dropout),
        ("rms", RMSNorm, False, nn.ReLU, Dropout),
        ("layer2d", LayerNorm2d, False, nn.ReLU, Dropout),
        ("mean_only", MeanOnlyBatchNorm, False, nn.ReLU, Dropout),
        ("ghost_batch", GhostBatchNorm, False, nn.ReLU, Dropout),
        ("batch_renorm", BatchRenorm, False, nn.ReLU, Dropout),
        ("noisy_batch", NoisyBatchNorm, False, nn.ReLU, Dropout),
        ("weight_standardization", type(None), True, nn.ReLU, Dropout),
        ("dynamic_tanh", DynamicTanh, False, nn.ReLU, Dropout),
    ],
)
def test_each_yaml_is_its_published_scheme(name, norm, wrapped, activation, dropout):
    block = scheme_with(name).block(nn.Linear(4, 8), nn.ReLU, dropout=0.1)
    assert (type(block.norm), type(block.activation), type(block.dropout)) == (norm, activation, dropout)
    assert hasattr(block.linear, "parametrizations") == wrapped
    assert (block.linear.bias is not None) == (norm in (type(None), DynamicTanh))


OVER_BATCH = {"eps": 0.5, "momentum": 0.25}


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        *((name, {"eps": 0.5}, {}) for name in ("layer", "group", "instance", "rms", "layer2d")),
        ("batch", OVER_BATCH, {}),
        ("mean_only", {"momentum": 0.25}, {}),
        ("weight_mean_only", {"momentum": 0.25}, {}),
        ("group", {"groups": 2}, {"num_groups": 2}),
        ("group", {"channels_per_group": 1}, {"num_groups": 8}),
        ("ghost_batch", {**OVER_BATCH, "virtual": 5}, {}),
        ("batch_renorm", {**OVER_BATCH, "r_max": 2.0, "d_max": 1.0, "warmup_steps": 7}, {}),
        ("noisy_batch", {**OVER_BATCH, "noise_mean": 1.0, "noise_scale": 2.0, "noise_spread": 0.5}, {}),
        ("dynamic_tanh", {"alpha": 2.0}, {}),
    ],
)
def test_options_reach_the_norm_in_blocks_and_in_cells(name, options, found):
    scheme = scheme_with(name, **options, affine=False)
    norms = [scheme.block(nn.Linear(4, 8)).norm]
    if scheme.recurrent_norm is not None:
        cells = scheme.recurrent_norm(8, 3, "input")
        norms.append(getattr(cells, "norm", cells))
        if norms[1].weight is not None:  # batch norm's gamma, which is not learned
            assert not norms[1].weight.requires_grad
            norms[1].weight = None
    for norm in norms:
        assert (norm.weight, norm.bias) == (None, None)
        assert {key: getattr(norm, key) for key in found or options} == (found or options)


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
