"""The table of what a sudden change of scale did, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.answer import tables
from normbench.analysis.groups import read
from normbench.analysis.weight_perturbation import perturbation_table, recovery
from normbench.runs import load

PERTURBATION = {
    "step": 20,
    "training_before": 0.2,
    "training_after": 0.5,
    "evaluation_before": 0.3,
    "evaluation_after": 0.9,
}
# one row of steps.csv every ten updates, the loss being 1 - value: the 20 updates before the change have a mean of 0.25
CURVE = (0.1, 0.7, 0.8, 0.5, 0.6, 0.74, 0.77, 0.9)


def test_losses_are_means_and_recovery_ends_with_the_first_window_as_good_as_before(
    study: Path, add: Callable[..., Path]
) -> None:
    add(norm="none", seed=0, curve=CURVE, summary={"perturbation": PERTURBATION})
    add(norm="none", seed=1, curve=CURVE, summary={"perturbation": PERTURBATION | {"training_after": 0.7}})
    add(
        norm="none",
        seed=2,
        status="diverged",
        curve=CURVE[:5],
        summary={"perturbation": PERTURBATION | {"training_after": None}},
    )
    cells = read(load(study))
    assert [recovery(entry) for entry in cells.entries] == [40.0, 40.0, math.inf]  # 0.26 and 0.23: 0.245
    table = perturbation_table(cells)
    assert table is not None
    [row] = table.rows
    assert (row["n"], row["recovery"], row["remarks"]) == (3, 40.0, "1 diverged")
    assert row["training_after"] == pytest.approx(0.6)
    assert row["evaluation_after"] == pytest.approx(0.9)
    assert "40" in table.texts(row)
    assert tables(cells)[-1].name == "scale_shock"


def test_a_study_without_a_perturbation_has_no_such_table(study: Path, add: Callable[..., Path]) -> None:
    add(norm="none")
    assert all(table.name != "scale_shock" for table in tables(read(load(study))))
