"""`normbench describe` against what is known of each norm; the axes are found by differentiating, not looked up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.cli import main
from normbench.description import axes


@pytest.mark.parametrize(
    ("norm", "size", "expected"),
    [
        (nn.BatchNorm2d(6), (4, 6, 5, 3), "examples, height, width: 60 values"),
        (nn.BatchNorm1d(6), (4, 6), "examples: 4 values"),
        (nn.GroupNorm(1, 6), (4, 6, 5, 3), "features, height, width: 90 values"),
        (nn.GroupNorm(2, 6), (4, 6, 5, 3), "features, height, width: 45 values (3 of 6 features at a time)"),
        (nn.GroupNorm(6, 6), (4, 6, 5, 3), "height, width: 15 values"),
        (nn.LayerNorm(6), (4, 6), "features: 6 values"),
        (nn.Tanh(), (4, 6), "no others: each value by itself"),
    ],
)
def test_axes_of_torchs_own_norms(norm: nn.Module, size: tuple[int, ...], expected: str) -> None:
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert axes(norm, size) == expected
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_describe(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["describe", "dataset=synthetic", "batch_size=4", "device=cpu"]
    assert main([*words, "norm=batch", "model=cnn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [conv2] = [line for line in lines if line.startswith("conv2")]
    expected = ("convolution 32 -> 64, 3 x 3", "64 x 14 x 14", "18,560", "BatchNorm")
    for text in (*expected, "examples, height, width: 784 values"):
        assert text in conv2
    assert any(line.startswith("104,426 parameters") for line in lines)
    assert main([*words, "norm=layer", "model=rnn"]) == 0
    assert "features: 400 values" in capsys.readouterr().out


def test_every_cell_can_be_described(norm_name: str, model_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["dataset=synthetic", "dataset.size=32", "batch_size=8", "device=cpu"]
    code = main(["describe", f"norm={norm_name}", f"model={model_name}", *words])
    printed = capsys.readouterr()
    assert (code == 0 and "parameters, " in printed.out) or (code == 2 and "norm" in printed.err.lower())
