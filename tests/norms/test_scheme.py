"""Schemes: what each YAML makes of a linear layer, and what leaving everything out makes."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torch import nn

from normbench.noise import AlphaDropout, Dropout
from normbench.norms import BatchNorm, LayerNorm, MeanOnlyBatchNorm, NormScheme, RMSNorm, weight_norm
from normbench.norms.activations import DynamicTanh
from normbench.norms.batch_renorm import BatchRenorm
from normbench.norms.ghost_batch import GhostBatchNorm
from normbench.norms.group import GroupNorm, InstanceNorm
from normbench.norms.layer import LayerNorm2d
from normbench.norms.noisy_batch import NoisyBatchNorm

EPS_WORDS, EPS_GIVES = ["norm.eps=0.5", "norm.affine=false"], {"eps": 0.5, "weight": None, "bias": None}


def test_leaving_everything_out_is_the_plain_network():
    block = NormScheme().block(nn.Linear(4, 3), nn.Tanh, dropout=0.25)
    assert (block.norm, block.placement) == (None, "before")
    assert type(block.linear) is nn.Linear
    assert block.linear.bias is not None
    assert type(block.activation) is nn.Tanh
    assert type(block.dropout) is Dropout
    assert block.dropout.p == 0.25
    assert NormScheme().block(nn.Linear(4, 3)).activation is None
    assert NormScheme().block(nn.Linear(4, 3)).dropout is None


def test_a_scheme_is_a_value():
    scheme = NormScheme(norm=LayerNorm)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheme.name = "other"
    assert scheme == NormScheme(norm=LayerNorm)


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
        (InstanceNorm, "before", False),
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


def test_without_an_activation_between_them_the_norm_is_next_to_the_bias_wherever_it_is_placed():
    for placement in ("before", "after"):
        assert NormScheme(norm=BatchNorm, placement=placement).block(nn.Linear(4, 3)).linear.bias is None


def test_a_placement_is_before_or_after():
    with pytest.raises(ValueError, match=r"norm.placement must be before or after \(the activation\): got behind"):
        NormScheme(placement="behind")


def test_a_plain_output_layer_keeps_bias_and_weight():
    block = NormScheme(norm=BatchNorm, reparametrize=weight_norm).block(nn.Linear(4, 3), normalize=False)
    assert {name for name, _ in block.named_parameters()} == {"linear.weight", "linear.bias"}


def test_a_normalised_output_layer_has_no_activation():
    block = NormScheme(norm=BatchNorm, activation=nn.SELU).block(nn.Linear(4, 3))
    assert block.activation is None
    assert block.norm is not None


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
    ],
)
def test_each_yaml_is_its_published_scheme(name, norm, wrapped, activation, dropout, scheme_of):
    block = scheme_of(name).block(nn.Linear(4, 8), nn.ReLU, dropout=0.1)
    assert type(block.norm) is norm
    assert hasattr(block.linear, "parametrizations") == wrapped
    assert type(block.activation) is activation
    assert type(block.dropout) is dropout
    assert (block.linear.bias is not None) == (norm is type(None))


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("batch", [*EPS_WORDS, "norm.momentum=0.25"], {**EPS_GIVES, "momentum": 0.25}),
        ("layer", EPS_WORDS, EPS_GIVES),
        ("weight_mean_only", ["norm.momentum=0.25", "norm.affine=false"], {"momentum": 0.25, "bias": None}),
        ("mean_only", ["norm.momentum=0.25", "norm.affine=false"], {"momentum": 0.25, "bias": None}),
        *((name, EPS_WORDS, EPS_GIVES) for name in ("group", "instance", "rms", "layer2d")),
        *(
            (name, [*EPS_WORDS, "norm.momentum=0.25"], {**EPS_GIVES, "momentum": 0.25})
            for name in ("ghost_batch", "batch_renorm", "noisy_batch")
        ),
        ("group", ["norm.groups=2"], {"num_groups": 2}),
        ("group", ["norm.channels_per_group=1"], {"num_groups": 8}),
        ("ghost_batch", ["norm.virtual=5"], {"virtual": 5}),
        (
            "batch_renorm",
            ["norm.r_max=2", "norm.d_max=1", "norm.warmup_steps=7"],
            {"r_max": 2, "d_max": 1, "warmup_steps": 7},
        ),
        (
            "noisy_batch",
            ["norm.noise_mean=1", "norm.noise_scale=2", "norm.noise_spread=0.5"],
            {"noise_mean": 1, "noise_scale": 2, "noise_spread": 0.5},
        ),
    ],
)
def test_options_reach_the_norm(name, words, options, scheme_of):
    norm = scheme_of(name, *words).block(nn.Linear(4, 8)).norm
    for key, value in options.items():
        assert getattr(norm, key) == value


def test_options_reach_the_cells_norms(scheme_of):
    norm = scheme_of("batch", "norm.eps=0.5", "norm.momentum=0.25", "norm.gamma=0.75").recurrent_norm(3, 4, "state")
    assert (norm.eps, norm.momentum, norm.running_mean.shape) == (0.5, 0.25, (4, 3))
    assert torch.equal(norm.weight.detach(), torch.full((3,), 0.75))
    assert scheme_of("batch", "norm.per_step=false").recurrent_norm(3, 4, "state").running_mean.shape == (1, 3)
    norm = scheme_of("weight_mean_only", "norm.momentum=0.25").recurrent_norm(3, 4, "input")
    assert (norm.momentum, norm.running_mean.shape) == (0.25, (4, 3))
    assert scheme_of("weight_mean_only", "norm.per_step=false").recurrent_norm(3, 4, "input").running_mean.shape == (
        1,
        3,
    )
    assert scheme_of("layer", "norm.eps=0.5").recurrent_norm(3, 4, "state").norm.eps == 0.5
    words = ("norm.virtual=5", "norm.eps=0.5", "norm.momentum=0.25", "norm.gamma=0.75", "norm.affine=false")
    norm = scheme_of("ghost_batch", *words).recurrent_norm(3, 4, "state")
    assert (norm.virtual, norm.eps, norm.momentum, norm.weight[0].item()) == (5, 0.5, 0.25, 0.75)
    assert not norm.weight.requires_grad
    assert scheme_of("mean_only", "norm.momentum=0.25").recurrent_norm(3, 4, "input").momentum == 0.25
    assert scheme_of("mean_only", "norm.per_step=false").recurrent_norm(3, 4, "input").running_mean.shape == (1, 3)


def test_gamma_may_be_given_as_a_whole_number(scheme_of):
    norm = scheme_of("batch", "norm.gamma=1").recurrent_norm(3, 4, "state")
    assert torch.equal(norm.weight.detach(), torch.ones(3))


def test_every_scheme_goes_through_a_pickle(norm_name, scheme_of):
    x, outputs = torch.randn(40, 3, 6, 6), []
    for scheme in (scheme_of(norm_name), pickle.loads(pickle.dumps(scheme_of(norm_name)))):
        torch.manual_seed(0)
        outputs.append(scheme.block(nn.Conv2d(3, 4, 3), nn.ReLU)(x))
    assert torch.equal(*outputs)


def test_every_scheme_carries_the_name_of_its_file(norm_name, scheme_of):
    assert scheme_of(norm_name).name == norm_name.split("/")[-1]
