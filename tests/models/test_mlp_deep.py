"""The deep MLP: as many equal blocks as asked for, its parameters counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.config.compose import build
from normbench.models import MLP, mlp_deep
from normbench.norms import BatchNorm, NormScheme, blocks


@pytest.mark.parametrize("depth", [1, 8, 16, 32])
@pytest.mark.parametrize("width", [5, 9])
def test_parameters(depth, width):
    model = mlp_deep(NormScheme(), (1, 4, 4), 3, depth=depth, width=width)
    count = 16 * width + (depth - 1) * width * width + depth * width + 3 * width + 3
    assert sum(p.numel() for p in model.parameters()) == count
    assert [name for name, _ in blocks(model)] == [f"hidden{i}" for i in range(1, depth + 1)] + ["output"]


def test_is_the_mlp_of_equal_layers():
    scheme = NormScheme(norm=BatchNorm)
    deep, plain = mlp_deep(scheme, (1, 4, 4), 3, depth=3, width=6), MLP(scheme, (1, 4, 4), 3, hidden=[6, 6, 6])
    deep.load_state_dict(plain.state_dict())
    x = torch.randn(7, 1, 4, 4)
    assert torch.equal(deep(x), plain(x))


@pytest.mark.parametrize(("option", "value"), [("depth", 0), ("width", 0), ("width", -3)])
def test_a_size_below_one_is_refused(option, value):
    with pytest.raises(ValueError, match=f"model.{option} must be 1 or more: got {value}"):
        mlp_deep(NormScheme(), (1, 4, 4), 3, **{"depth": 2, "width": 4, option: value})


def test_options_of_the_yaml_reach_the_model(cell_of):
    words = ("model.depth=3", "model.width=7", "model.activation=tanh", "model.dropout=0.5",
             "model.normalize_output=true")  # fmt: skip
    parts = build(cell_of("norm=batch", "model=mlp_deep", *words).config)
    model = parts.model(parts.scheme, (1, 4, 4), 3)
    assert [block.linear.out_features for _, block in blocks(model)] == [7, 7, 7, 3]
    assert type(model.hidden3.activation) is nn.Tanh
    assert model.hidden1.dropout.p == 0.5
    assert model.output.norm is not None
