"""How long it takes to a validation accuracy: in updates, in images seen, in seconds of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from normbench.analysis.columns import REMARKS, SCHEME, number, setting_columns, where, without_result
from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cell, Cells
from normbench.analysis.measured import rows
from normbench.analysis.table import Column, Table

MEASURES = {"steps": "step", "samples": "samples", "seconds": "train_seconds"}  # our name -> that in epochs.csv
Reached = dict[str, float]


def reached(entry: Entry, targets: Sequence[float]) -> list[Reached | None]:
    """Where each target was first reached at an evaluation, not interpolated; None: never."""
    numbers = rows(entry, "epochs", "validation_accuracy", *MEASURES.values())
    accuracy = numbers.validation_accuracy.to_numpy()
    found: list[Reached | None] = []
    for target in targets:
        first = int(np.argmax(accuracy >= target)) if (accuracy >= target).any() else None
        found.append(
            None if first is None else {name: float(numbers[key].iloc[first]) for name, key in MEASURES.items()}
        )
    return found


def median(found: Sequence[Reached | None], measure: str) -> float | None:
    """Median over all runs, one that never gets there being infinitely late; None without runs."""
    return float(np.median([math.inf if f is None else f[measure] for f in found])) if found else None


def time_table(cells: Cells, targets: Sequence[float]) -> Table:
    rows: list[dict[str, Any]] = []
    for setting, by_scheme in cells.settings.items():
        for scheme, cell in by_scheme.items():
            by_run = [reached(entry, targets) for entry in cell.having("complete", "diverged")]
            for place, target in enumerate(targets):
                found = [run[place] for run in by_run]
                rows.append(where(cells, scheme, setting) | _row(cell, target, found))
    columns = [
        SCHEME,
        *setting_columns(cells),
        Column("target", "target", number("{:g}%", 100)),
        Column("reached_text", "runs that reach it", str, "reached"),
        Column("steps", "updates", _late("{:,.0f}")),
        Column("samples", "images", _late("{:,.0f}")),
        Column("seconds", "training s", _late("{:.1f}")),
        REMARKS,
    ]
    caption = (
        f"From {sum(row['n'] for row in rows if row['target'] == targets[0])} runs: the first evaluation at which the "
        "validation accuracy is at the target or above; evaluations are the resolution. Medians over all seeds of a "
        "cell, one that never gets there, or diverges before, being later than all others: not reached, where half of "
        "them or more never do. Seconds of training alone, on the machine at hand. The CSV file has the medians of "
        "those that get there as well."
    )
    return Table("time_to_target", "Time to target", caption, columns, rows)


def _row(cell: Cell, target: float, found: Sequence[Reached | None]) -> dict[str, Any]:
    there = [f for f in found if f is not None]
    return {
        "target": target,
        "n": len(found),
        "reached": len(there),
        "reached_text": f"{len(there)}/{len(found)}",
        **{measure: median(found, measure) for measure in MEASURES},
        **{f"{measure}_of_reached": median(there, measure) for measure in MEASURES},
        "remarks": ", ".join(without_result(cell)),
    }


def _late(pattern: str) -> Any:
    return lambda value: "not reached" if value == math.inf else number(pattern)(value)
