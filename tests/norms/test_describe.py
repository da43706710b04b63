"""`normbench describe` against what is known of each norm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from normbench.cli import main
from normbench.norms import Block, blocks
from normbench.norms.describe import axes, describe
from normbench.norms.ghost_batch import GhostBatchNorm
from normbench.norms.layer import DynamicTanh, GroupNorm
from normbench.norms.switchable import SwitchableNorm


class MaxNorm(nn.Module):
    """A user's own, which declares nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.abs().flatten(1).amax(1).view(-1, *[1] * (x.dim() - 1))


@pytest.mark.parametrize(
    ("norm", "size", "expected"),
    [
        (nn.BatchNorm2d(6), (4, 6, 5, 3), "examples, height, width: 60 values"),
        (nn.BatchNorm1d(6), (4, 6), "examples: 4 values"),
        (nn.GroupNorm(1, 6), (4, 6, 5, 3), "features, height, width: 90 values"),
        (nn.GroupNorm(2, 6), (4, 6, 5, 3), "features, height, width: 45 values (3 of 6 features at a time)"),
        (nn.InstanceNorm2d(6), (4, 6, 5, 3), "height, width: 15 values"),
        (nn.LayerNorm(6), (4, 6), "features: 6 values"),
        (DynamicTanh(6), (4, 6), "no others: each value by itself"),
        (GhostBatchNorm(6, virtual=3), (4, 6, 5, 3), "examples, height, width: 45 values"),
        (GroupNorm(6, groups=6), (4, 6, 5, 3), "height, width: 15 values"),
        (SwitchableNorm(6), (4, 6), "a mixture of layer (features: 6 values), batch (examples: 4 values)"),
        (SwitchableNorm(6), (4, 6, 5, 3), "a mixture of instance (height, width: 15 values), layer (features, height, "
         "width: 90 values), batch (examples, height, width: 60 values)"),
        (MaxNorm(), (4, 6), "unknown: the norm declares no `over`"),
    ],
)  # fmt: skip
def test_axes_of_torchs_own_norms(norm: nn.Module, size: tuple[int, ...], expected: str) -> None:
    assert axes(norm, size) == expected


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["describe", "dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "device=cpu"]
    assert main([*words, "batch_size=4", "norm=batch", "model=cnn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [conv2] = [line for line in lines if line.startswith("conv2")]
    expected = ("convolution 32 -> 64, 3 x 3", "64 x 14 x 14", "18,560", "BatchNorm")
    for text in (*expected, "examples, height, width: 784 values"):
        assert text in conv2
    assert any(line.startswith("104,426 parameters") for line in lines)
    assert main([*words, "norm=instance", "model=mlp"]) == 2
    assert "InstanceNorm needs two positions" in capsys.readouterr().err


def test_every_model_can_be_described(model_name: str, network_of: Any) -> None:
    check(network_of("batch", model_name, normalize_output=False))


def test_every_scheme_can_be_described(norm_name: str, network_of: Any) -> None:
    check(network_of(norm_name, "cnn", normalize_output=False))


def check(model: nn.Module) -> None:
    before = dict(model.named_modules())
    layers = describe(model, (1, 8, 8), 6)
    assert [layer.name for layer in layers] == [name for name, _ in blocks(model)]
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in model.parameters())
    for layer in layers:
        assert (layer.norm == "-") == (layer.over == "-"), layer
        assert "()" not in layer.linear, layer
        block = before[layer.name]
        assert block.observer is None
        if isinstance(block, Block):
            assert (layer.norm == "-") == (block.norm is None), layer


def test_sums_and_cells_in_words(network_of: Any) -> None:
    sums = [layer for layer in describe(network_of("batch", "resnet"), (1, 8, 8), 4) if layer.name.endswith(".sum")]
    assert {(layer.linear, layer.parameters, layer.norm) for layer in sums} == {("sum with the shortcut", 0, "-")}
    [cell, _] = describe(network_of("layer", "rnn"), (1, 8, 8), 4)
    assert cell.linear == "LSTMCell (input: linear 8 -> 28; hidden: linear 7 -> 28)"
    assert (cell.norm, cell.over) == ("LayerNorm (input, hidden, state)", "features: 28 values")
    [cell, _] = describe(network_of("weight_mean_only", "rnn", cell="gru"), (1, 8, 8), 4)
    assert cell.norm == "MeanOnlyBatchNorm (input, hidden, candidate_input, candidate_hidden)"
    assert "input: linear 8 -> 21, weight by WeightNorm;" in cell.linear
