"""Schemes: what each YAML makes of a linear layer, and what leaving everything out makes."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from torch import nn

from normbench.norms import BatchNorm, LayerNorm, MeanOnlyBatchNorm, NormScheme, weight_norm


def test_leaving_everything_out_is_the_plain_network():
    block = NormScheme().block(nn.Linear(4, 3), nn.Tanh, dropout=0.25)
    assert (block.norm, block.placement) == (None, "before")
    assert type(block.linear) is nn.Linear
    assert block.linear.bias is not None
    assert type(block.activation) is nn.Tanh
    assert type(block.dropout) is nn.Dropout
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
    ],
)
def test_the_bias_is_dropped_where_the_norm_makes_it_useless(norm, placement, bias):
    for linear in (nn.Linear(4, 3), nn.Conv2d(4, 3, 3)):
        block = NormScheme(norm=norm, placement=placement).block(linear, nn.ReLU)
        assert (block.linear.bias is not None) == bias
        assert "linear.bias" in dict(block.named_parameters()) or not bias


def test_a_plain_output_layer_keeps_bias_and_weight():
    block = NormScheme(norm=BatchNorm, wrap=weight_norm).block(nn.Linear(4, 3), normalize=False)
    assert {name for name, _ in block.named_parameters()} == {"linear.weight", "linear.bias"}


def test_a_normalised_output_layer_has_no_activation():
    block = NormScheme(norm=BatchNorm, activation=nn.SELU).block(nn.Linear(4, 3))
    assert block.activation is None
    assert block.norm is not None


def test_features_are_the_layers_outputs():
    for linear in (nn.Linear(4, 3), nn.Conv2d(4, 3, 3)):
        assert len(NormScheme(norm=BatchNorm).block(linear).norm.weight) == 3


@pytest.mark.parametrize(
    ("name", "norm", "wrapped", "activation", "dropout"),
    [
        ("none", type(None), False, nn.ReLU, nn.Dropout),
        ("batch", BatchNorm, False, nn.ReLU, nn.Dropout),
        ("layer", LayerNorm, False, nn.ReLU, nn.Dropout),
        ("weight", type(None), True, nn.ReLU, nn.Dropout),
        ("weight_mean_only", MeanOnlyBatchNorm, True, nn.ReLU, nn.Dropout),
        ("selu", type(None), False, nn.SELU, nn.AlphaDropout),
    ],
)
def test_each_yaml_is_its_published_scheme(name, norm, wrapped, activation, dropout, scheme_of):
    block = scheme_of(name).block(nn.Linear(4, 3), nn.ReLU, dropout=0.1)
    assert type(block.norm) is norm
    assert hasattr(block.linear, "parametrizations") == wrapped
    assert type(block.activation) is activation
    assert type(block.dropout) is dropout
    assert (block.linear.bias is not None) == (norm is type(None))


@pytest.mark.parametrize(
    ("name", "words", "options"),
    [
        ("batch", ["norm.eps=0.5", "norm.momentum=0.25"], {"eps": 0.5, "momentum": 0.25}),
        ("batch", ["norm.affine=false"], {"weight": None, "bias": None}),
        ("layer", ["norm.eps=0.5"], {"eps": 0.5}),
        ("layer", ["norm.affine=false"], {"weight": None, "bias": None}),
        ("weight_mean_only", ["norm.momentum=0.25"], {"momentum": 0.25}),
        ("weight_mean_only", ["norm.affine=false"], {"bias": None}),
    ],
)
def test_options_reach_the_norm(name, words, options, scheme_of):
    norm = scheme_of(name, *words).block(nn.Linear(4, 3)).norm
    for key, value in options.items():
        assert getattr(norm, key) == value


def test_options_reach_the_cells_norms(scheme_of):
    norm = scheme_of("batch", "norm.eps=0.5", "norm.momentum=0.25", "norm.gamma=0.75").cell_norm(3, 4, "state")
    assert (norm.eps, norm.momentum, norm.running_mean.shape) == (0.5, 0.25, (4, 3))
    assert torch.equal(norm.weight.detach(), torch.full((3,), 0.75))
    assert scheme_of("batch", "norm.per_step=false").cell_norm(3, 4, "state").running_mean.shape == (1, 3)
    norm = scheme_of("weight_mean_only", "norm.momentum=0.25").cell_norm(3, 4, "input")
    assert (norm.momentum, norm.running_mean.shape) == (0.25, (4, 3))
    assert scheme_of("weight_mean_only", "norm.per_step=false").cell_norm(3, 4, "input").running_mean.shape == (1, 3)
    assert scheme_of("layer", "norm.eps=0.5").cell_norm(3, 4, "state").norm.eps == 0.5


def test_gamma_may_be_given_as_a_whole_number(scheme_of):
    norm = scheme_of("batch", "norm.gamma=1").cell_norm(3, 4, "state")
    assert torch.equal(norm.weight.detach(), torch.ones(3))


def test_every_scheme_goes_through_a_pickle(norm_name, scheme_of):
    scheme = pickle.loads(pickle.dumps(scheme_of(norm_name)))
    torch.manual_seed(0)
    a = scheme.block(nn.Linear(4, 3), nn.ReLU)
    torch.manual_seed(0)
    b = scheme_of(norm_name).block(nn.Linear(4, 3), nn.ReLU)
    x = torch.randn(5, 4)
    assert torch.equal(a(x), b(x))


def test_every_scheme_carries_the_name_of_its_file(norm_name, scheme_of):
    assert scheme_of(norm_name).name == norm_name.split("/")[-1]
