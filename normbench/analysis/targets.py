"""How long it takes to a validation accuracy: in updates, in images seen, in seconds of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from normbench.analysis.groups import Group, Groups
from normbench.analysis.measured import rows
from normbench.analysis.tables import (
    REMARKS,
    SCHEME,
    Column,
    Table,
    number,
    row_start,
    setting_columns,
    without_result,
)
from normbench.runs import Run

MEASURES = {"steps": "step", "samples": "samples", "seconds": "train_seconds"}  # our name -> that in epochs.csv
LADDER = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
Reached = dict[str, float]


def reached(run: Run, target: float) -> Reached | None:
    """Where a target was first reached, on straight lines between evaluations; None: never.

    So that runs that were evaluated more or less often may be compared.
    """
    table = rows(run, "epochs", "validation_accuracy", *MEASURES.values())
    accuracy = table["validation_accuracy"].to_numpy(dtype=float)
    evaluated = ~np.isnan(accuracy)
    accuracy = accuracy[evaluated]
    if not (accuracy >= target).any():
        return None
    i = int((accuracy >= target).argmax())
    share = (target - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1]) if i else 1.0
    places = {name: table[key].to_numpy(dtype=float)[evaluated] for name, key in MEASURES.items()}
    return {name: float(at[max(i - 1, 0)] + share * (at[i] - at[max(i - 1, 0)])) for name, at in places.items()}


def usual_targets(groups: Groups) -> tuple[float, ...]:
    """Two of LADDER: the highest that half of the runs of the best cell reach, and of a cell in the middle."""
    best = []
    for group in groups.groups:
        curves = [rows(run, "epochs", "validation_accuracy")["validation_accuracy"] for run in group.having("complete")]
        best += [float(np.median([curve.max() for curve in curves]))] if curves else []
    ends = (np.max(best), np.median(best)) if best else ()
    return tuple(sorted({target for end in ends if (target := max((t for t in LADDER if t <= end), default=None))}))


def median(found: Sequence[Reached | None], measure: str) -> float | None:
    """Median over all runs, one that never gets there being infinitely late; None without runs."""
    return float(np.median([math.inf if f is None else f[measure] for f in found])) if found else None


def time_table(groups: Groups, targets: Sequence[float] | None) -> Table:
    targets = usual_targets(groups) if targets is None else targets
    if not targets:
        note = f"No complete run has reached {100 * LADDER[0]:g}% validation accuracy."
        return Table("time_to_target", "Time to target", "", [], [], note)
    made = [
        row_start(groups, group.scheme, group.setting) | _row(group, target)
        for group in groups.groups
        for target in targets
    ]
    columns = [
        SCHEME,
        *setting_columns(groups),
        Column("target", "target", number("{:g}%", 100)),
        Column("reached_text", "runs that reach it", str, "reached"),
        Column("steps", "updates", number("{:,.0f}", never="not reached")),
        Column("samples", "images", number("{:,.0f}", never="not reached")),
        Column("seconds", "training s", number("{:.1f}", never="not reached")),
        REMARKS,
    ]
    caption = (
        f"From {sum(row['n'] for row in made if row['target'] == targets[0])} runs: where the learning curve's "
        "accuracy first reaches the target, on straight lines between its points. Medians over all seeds of a cell, "
        "one that never gets there, or diverges before, being later than all others: not reached, where half of "
        "them or more never do. Seconds of training alone, on the machine at hand. The CSV file has the medians of "
        "those that get there as well."
    )
    return Table("time_to_target", "Time to target", caption, columns, made)


def _row(group: Group, target: float) -> dict[str, Any]:
    found = [reached(run, target) for run in group.having("complete", "diverged")]
    there = [f for f in found if f is not None]
    return {
        "target": target,
        "n": len(found),
        "reached": len(there),
        "reached_text": f"{len(there)}/{len(found)}",
        **{measure: median(found, measure) for measure in MEASURES},
        **{f"{measure}_of_reached": median(there, measure) for measure in MEASURES},
        "remarks": ", ".join(without_result(group)),
    }
