"""Ridges, landscape, time steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from normbench.analysis.groups import read
from normbench.plots import landscape, ridges, time_steps
from normbench.plots.drawing import look
from normbench.runs import load
from tests.report.measured_study import Row, measure

Add = Callable[..., Path]


def histogram(step: int, counts: dict[int, int], **row: object) -> Row:
    at = {"step": step, "layer": "a", "tensor": "linear", "way": "probe", "unit": "", "low": 0, "high": 64} | row
    return at | {f"h{k:02}": counts.get(k, 0) for k in range(64)}


def test_densities_from_bins_of_other_widths() -> None:
    counts = np.zeros((2, 64))
    counts[0, :4] = 1, 1, 2, 0
    counts[1, 0] = 5
    shapes = ridges.Shapes(np.array([0, 1]), np.array([0.0, 3.0]), np.array([64.0, 3.0]), counts, "probe", "linear")
    edges = np.array([0.0, 2.0, 4.0, 8.0])
    np.testing.assert_allclose(shapes.density(0, edges), [0.25, 0.25, 0])  # half of the values in each 2
    np.testing.assert_allclose(shapes.density(1, edges), [0, 0.5, 0])  # all values are 3
    assert ridges._within(shapes, 0) == 3  # the third bin, to 3, holds the last of the values


def test_the_way_batch_comes_first_and_has_a_bound(study: Path, add: Add) -> None:
    rows = [histogram(0, {1: 4}), histogram(0, {2: 4}, way="batch"), histogram(0, {3: 4}, unit=0, way="batch")]
    rows += [histogram(0, {5: 4}, way="batch", tensor="normalized"), histogram(1, {}, way="batch")]
    measure(add(norm="batch", batch_size=5), "distributions", rows)
    (entry,) = read(load(study)).entries
    found = ridges.shapes_of(entry)["a"]
    assert (found.way, found.tensor, found.steps.tolist()) == ("batch", "normalized", [0])
    assert found.counts[0, 5] == 4
    assert ridges._bound(entry, found) == 2


def test_the_bound_is_marked_where_it_holds(study: Path, add: Add) -> None:
    for norm in ("none", "batch"):
        tensor = "normalized" if norm == "batch" else "linear"
        rows = [histogram(s, {20: 5, 43: 5}, low=-3, high=3, tensor=tensor, way="batch") for s in (0, 1)]
        measure(add(norm=norm, batch_size=2), "distributions", rows)
    with look():
        (figure,) = ridges.draw(read(load(study)))
    assert "Dashed" in figure.caption
    assert "batch size 2" in figure.title


def test_only_positive_numbers_of_one_kind(study: Path, add: Add) -> None:
    row = dict.fromkeys(landscape.NUMBERS, 1.0) | {"kind": "absolute", "step": 0}
    measure(add(), "landscape", [row, row | {"kind": "relative"}, row | {"step": 2, "change_min": 0}])
    (entry,) = read(load(study)).entries
    found = landscape._kind(entry, "absolute")
    assert found.step.tolist() == [0, 2]
    assert np.isnan(found.change_min.iloc[1])
    assert found.change_max.tolist() == [1, 1]


def test_along_the_sequence_at_the_end(study: Path, add: Add) -> None:
    rows = [{"step": s, "layer": "cell", "tensor": "linear", "way": w, "time": t, "mean": 10 * s + t, "std": 1}
            for s in (0, 3) for w in ("probe", "running") for t in (4, 0)]  # fmt: skip
    measure(add(), "time_steps", rows)
    (entry,) = read(load(study)).entries
    assert time_steps.along(entry, "cell", "linear", "mean").to_dict() == {0: 30, 4: 34}
    assert len(time_steps.along(entry, "cell", "activation", "mean")) == 0
