"""The figure of single units: which unit is drawn, and its numbers against hand-made bands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normbench.analysis.groups import read
from normbench.plots import ribbons
from normbench.plots.drawing import look
from normbench.runs import load

Add = Callable[..., Path]


def rows(excursions: list[float], tensor: str = "linear") -> str:
    """Unit j has medians 0 and excursions[j], and a band of width 4 around them; at steps 0 and 10."""
    text = ""
    for step in (0, 10):
        for unit, far in enumerate(excursions):
            middle = far * (step > 0)
            text += f"{step},,,,hidden1,{tensor},probe,{unit},9,0,1,0,-9,{middle - 2},{middle},{middle + 2},9\n"
    return text


@pytest.fixture
def two_schemes(study: Path, add: Add) -> Path:
    for norm, tensor, far in (("none", "linear", 1.0), ("batch", "normalized", 0.1)):
        path = add(norm=norm)
        with (path / "measured" / "activations.csv").open("a") as file:
            file.write("0,,,,hidden1,linear,probe,,9,0,1,0,-9,-2,0,2,9\n")  # the whole layer
            file.write(rows([far * k for k in (5, 1, 4, 2, 3)], tensor))
            file.write("0,,,,output,linear,probe,0,9,0,1,0,-9,-2,0,2,9\n")  # no hidden layer
            file.write("0,,,,hidden1,linear,running,,9,0,1,0,-9,-2,0,2,9\n")  # another way
    return study


def test_the_unit_drawn_is_the_one_with_the_median_excursion(two_schemes: Path) -> None:
    batch, none = (ribbons.tracked_units(run) for run in read(load(two_schemes)).members)
    assert none is not None
    assert batch is not None
    assert (none.layer, none.tensor, batch.tensor) == ("hidden1", "linear", "normalized")
    assert none.names == [0, 1, 2, 3, 4]
    assert none.excursion == pytest.approx([5, 1, 4, 2, 3])
    assert none.relative == pytest.approx(np.array([5, 1, 4, 2, 3]) / 4)
    assert none.typical == batch.typical == 4
    assert batch.excursion == pytest.approx([0.5, 0.1, 0.4, 0.2, 0.3])


def test_the_caption_has_the_numbers(two_schemes: Path) -> None:
    with look():
        figure = ribbons.draw(read(load(two_schemes)))[-1]
    assert figure.svg
    assert figure.name == "ribbons_unit"
    assert "none: 5 units, the highest median minus the lowest is 3.00" in figure.caption
    assert "(from 1.00 to 5.00), 0.75 of the band's width." in figure.caption
    assert "is 0.30 for half of them (from 0.10 to 0.50), 0.08 of the band's width." in figure.caption


def test_without_rows_of_units_there_is_no_such_figure(study: Path, add: Add) -> None:
    add(norm="none")
    with look():
        assert [figure.name for figure in ribbons.draw(read(load(study)))] == ["ribbons"]
