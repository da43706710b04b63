"""The CNN: its blocks, its parameters counted by hand, and sides that are halved while they can be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.config.compose import build
from normbench.models import CNN
from normbench.norms import NormScheme, blocks

# 8x8 -> conv 4 -> 4x4 -> conv 6 -> 2x2 -> 5 classes, by hand.
WEIGHTS = 9 * 1 * 4 + 9 * 4 * 6 + 6 * 2 * 2 * 5
CHANNELS, OUTPUT = 4 + 6, 5


@pytest.mark.parametrize(
    ("norm", "count"),
    [
        ("none", WEIGHTS + CHANNELS + OUTPUT),
        ("selu", WEIGHTS + CHANNELS + OUTPUT),
        ("batch", WEIGHTS + 2 * CHANNELS + OUTPUT),
        ("layer", WEIGHTS + 2 * CHANNELS + OUTPUT),
        ("weight", WEIGHTS + 2 * CHANNELS + OUTPUT),
        ("weight_mean_only", WEIGHTS + 2 * CHANNELS + OUTPUT),
    ],
)
def test_parameters(norm, count, network_of):
    assert sum(p.numel() for p in network_of(norm, "cnn").parameters()) == count


def test_blocks_and_logits(network_of, batch_of):
    model = network_of("none", "cnn")
    assert [name for name, _ in blocks(model)] == ["conv1", "conv2", "output"]
    x = batch_of(3)[0]
    h = nn.functional.max_pool2d(model.conv1.linear(x).relu(), 2)
    h = nn.functional.max_pool2d(model.conv2.linear(h).relu(), 2)
    assert h.shape == (3, 6, 2, 2)
    torch.testing.assert_close(model(x), model.output.linear(h.flatten(1)))


@pytest.mark.parametrize(
    ("shape", "channels", "inputs"),
    [
        ((1, 28, 28), [2, 3, 4], 4 * 3 * 3),  # 28 -> 14 -> 7 -> 3
        ((3, 32, 32), [2, 3, 4], 4 * 4 * 4),
        ((1, 4, 4), [2, 3, 4, 5], 5),  # 4 -> 2 -> 1, and then no pooling
        ((1, 5, 9), [2, 3], 3 * 1 * 2),
        ((1, 1, 9), [2], 2 * 9),
        ((2, 3, 3), [], 2 * 3 * 3),
    ],
)
def test_sides_are_halved_while_they_are_two_or_more(shape, channels, inputs):
    model = CNN(NormScheme(), shape, 10, channels=channels)
    assert model.output.linear.in_features == inputs
    assert model(torch.randn(2, *shape)).shape == (2, 10)


def test_dropout_after_each_convolution_in_training_alone(norm_name, network_of, batch_of):
    model = network_of(norm_name, "cnn", dropout=0.5)
    kind = nn.AlphaDropout if norm_name == "selu" else nn.Dropout
    assert [type(block.dropout) for _, block in blocks(model)] == [kind, kind, type(None)]
    x = batch_of(8)[0]
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_options_of_the_yaml_reach_the_model(cell_of):
    words = ("model.channels=[7]", "model.activation=tanh", "model.dropout=0.5", "model.normalize_output=true")
    parts = build(cell_of("norm=batch", "model=cnn", *words).config)
    model = parts.model(parts.scheme, (1, 4, 4), 3)
    assert model.conv1.linear.out_channels == 7
    assert type(model.conv1.activation) is nn.Tanh
    assert model.conv1.dropout.p == 0.5
    assert model.output.norm is not None
