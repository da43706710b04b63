"""What a sudden change of one block's weights did, and how long training took to get over it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from normbench.analysis.columns import REMARKS, SCHEME, number, setting_columns, where
from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cell, Cells
from normbench.analysis.measured import rows
from normbench.analysis.statistics import estimate
from normbench.analysis.table import Column, Table

WINDOW = 20  # updates whose mean loss is compared
LOSSES = [f"{mode}_{when}" for mode in ("training", "evaluation") for when in ("before", "after")]


def perturbation_table(cells: Cells) -> Table | None:
    """None where no run had its weights changed."""
    found = [
        where(cells, scheme, setting) | _row(cell)
        for setting, by_scheme in cells.settings.items()
        for scheme, cell in by_scheme.items()
        if any("perturbation" in entry.summary for entry in cell.entries)
    ]
    if not found:
        return None
    loss = number("{:.3f}")
    columns = [
        SCHEME,
        *setting_columns(cells),
        *(Column(name, name.replace("_", ", "), loss) for name in LOSSES),
        Column("recovery", "updates to recover", lambda v: "not recovered" if v == math.inf else number("{:.0f}")(v)),
        Column("n", "n"),
        REMARKS,
    ]
    caption = (
        f"From {sum(row['n'] for row in found)} runs: after so many updates the weights of one block were multiplied "
        "once. Loss on the mini-batch of the next update before and after that, with the statistics of this batch "
        '("training", dropout off) and as in inference ("evaluation", running statistics): means over seeds; what '
        "does not work with the batch has the same in both. Updates to recover: the end of the first "
        f"{WINDOW} updates whose mean training loss is no higher than that of the {WINDOW} before the change; median "
        "over seeds, a run that never gets there or diverges being later than all others."
    )
    return Table("scale_shock", "A sudden change of scale", caption, columns, found)


def recovery(entry: Entry) -> float:
    """Updates from the change to the end of the first window as good as the one before it; infinite: none is."""
    perturbed = int(entry.summary["perturbation"]["step"])
    table = rows(entry, "steps", "step", "loss")
    steps, losses = table["step"].to_numpy(dtype=float), table["loss"].to_numpy(dtype=float)
    before = losses[(steps > perturbed - WINDOW) & (steps <= perturbed)]
    for end in steps[steps >= perturbed + WINDOW]:
        window = losses[(steps > end - WINDOW) & (steps <= end)]
        if len(before) and np.mean(window) <= np.mean(before):  # NaN, of a run that diverged, is not
            return float(end - perturbed)
    return math.inf


def _row(cell: Cell) -> dict[str, Any]:
    perturbed = [entry for entry in cell.having("complete", "diverged") if "perturbation" in entry.summary]
    means = {}
    for name in LOSSES:
        values = [v for e in perturbed if (v := e.summary["perturbation"].get(name)) is not None and math.isfinite(v)]
        found = estimate(values)
        means[name] = found.mean if found else None
    diverged = len(cell.having("diverged"))
    return {
        **means,
        "recovery": float(np.median([recovery(entry) for entry in perturbed])) if perturbed else None,
        "n": len(perturbed),
        "remarks": f"{diverged} diverged" if diverged else "",
    }
