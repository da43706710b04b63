"""VGG-11: its layers in order, and its parameters counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.config.compose import build
from normbench.models import vgg11
from normbench.norms import BatchNorm, NormScheme, blocks


# With a factor k of the published numbers of channels 64 128 256 256 512 512 512 512, in units of 64:
# 1 2 4 4 8 8 8 8; products of neighbours: 2 + 8 + 16 + 32 + 64 + 64 + 64 = 250; their sum 43.
@pytest.mark.parametrize("width", [1.0, 0.25, 0.125])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_parameters(width, shape, norm):
    with torch.device("meta"):
        model = vgg11(NormScheme(norm=norm), shape, 10, width=width)
    k = int(64 * width)
    weights = 9 * (shape[0] * k + 250 * k * k) + 8 * k * 10
    per_channel = 1 if norm is None else 2  # a bias; gamma and beta
    assert sum(p.numel() for p in model.parameters()) == weights + per_channel * 43 * k + 10


@pytest.mark.parametrize(
    ("shape", "sides", "pools"),
    [
        ((3, 32, 32), [32, 16, 8, 8, 4, 4, 2, 2], [1, 2, 4, 6, 8]),
        ((1, 28, 28), [28, 14, 7, 7, 3, 3, 1, 1], [1, 2, 4, 6]),  # nothing is left to pool
        ((1, 8, 8), [8, 4, 2, 2, 1, 1, 1, 1], [1, 2, 4]),
    ],
)
def test_sides(shape, sides, pools):
    model = vgg11(NormScheme(), shape, 10, width=1 / 32)
    seen = []
    for name, block in blocks(model):
        if name != "output":
            block.observer = lambda name, tensor: seen.append(tensor.shape[2]) if name == "linear" else None
    assert model(torch.randn(2, *shape)).shape == (2, 10)
    assert seen == sides
    assert [name for name, _ in model.named_children() if name.startswith("pool")] == [f"pool{i}" for i in pools]
    assert model.output.linear.in_features == 16


@pytest.mark.parametrize("width", [0.0, -1.0, float("inf"), float("nan")])
def test_a_width_that_is_no_factor_is_refused(width):
    with pytest.raises(ValueError, match=r"model.width, a factor of the numbers of channels, must be above 0: got"):
        vgg11(NormScheme(), (1, 8, 8), 10, width=width)


def test_options_of_the_yaml_reach_the_model(cell_of):
    words = ("model.width=0.03125", "model.activation=tanh", "model.dropout=0.5", "model.normalize_output=true")
    parts = build(cell_of("norm=batch", "model=vgg11", *words).config)
    model = parts.model(parts.scheme, (1, 8, 8), 3)
    assert [model.conv1.linear.out_channels, model.conv8.linear.out_channels] == [2, 16]
    assert type(model.conv1.activation) is nn.Tanh
    assert model.conv1.dropout.p == 0.5
    assert model.output.norm is not None
