"""The figure of the shift: which rows it draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.groups import read
from normbench.plots import shift
from normbench.plots.drawing import look
from normbench.runs import load

Add = Callable[..., Path]
BAND = [(-2.0, -1.0, 0.0, 1.0, 2.0)] * 3


def test_a_layers_curve_is_of_what_enters_its_activation(study: Path, add: Add) -> None:
    path = add(norm="batch", layers={"b/linear": BAND, "b/normalized": BAND[:2], "a/linear": BAND})
    with (path / "measured" / "shift.csv").open("a") as file:
        file.write(
            "10,,,,a,linear,running,start,9,9,9\n10,,,,a,linear,probe,path,9,9,9\n10,,,,a,activation,probe,start,9,9,9\n"
        )
    (run,) = read(load(study)).members
    found = shift.curves(run)
    assert list(found) == ["b", "a"]
    assert found["b"].step.tolist() == [0, 1]
    assert found["a"].step.tolist() == [0, 1, 10]
    assert found["a"].w1_scaled_mean.tolist() == pytest.approx([0, 0.1, 0.2])
    assert found["a"].floor.tolist() == pytest.approx([0.02] * 3)


def test_it_is_drawn_and_says_from_how_many_runs(study: Path, add: Add) -> None:
    for norm in ("none", "batch"):
        for seed in (0, 1):
            add(norm=norm, seed=seed, layers={"a/linear": BAND})
    with look():
        (figure,) = shift.draw(read(load(study)))
    assert figure.svg
    assert "none 2, batch 2." in figure.caption


def test_without_the_instrument_it_says_so(study: Path, add: Add) -> None:
    add(norm="none")
    (figure,) = shift.draw(read(load(study)))
    assert not figure.svg
    assert "instrument shift" in figure.caption
