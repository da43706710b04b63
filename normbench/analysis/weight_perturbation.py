"""What a sudden change of one block's weights did, and how long training took to get over it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from normbench.analysis.groups import Groups
from normbench.analysis.measured import rows
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, number, row_start, setting_columns
from normbench.runs import Run

WINDOW = 20  # updates whose mean loss is compared
LOSSES = [f"{mode}_{when}" for mode in ("training", "evaluation") for when in ("before", "after")]


def perturbation_table(groups: Groups) -> Table | None:
    """None where no run had its weights changed."""
    found = []
    for group in groups.groups:
        perturbed = [run for run in group.having("complete", "diverged") if "perturbation" in run.summary]
        if any("perturbation" in run.summary for run in group.members):
            losses = pd.DataFrame([run.summary["perturbation"] for run in perturbed]).reindex(columns=LOSSES)
            means = losses.apply(pd.to_numeric, errors="coerce").replace([math.inf, -math.inf], math.nan).mean()
            late = pd.Series([recovery(run) for run in perturbed], dtype=float).median()
            diverged = f"{n} diverged" if (n := group.count("diverged")) else ""
            known = {key: None if math.isnan(value) else value for key, value in {**means, "recovery": late}.items()}
            row = {**known, "n": len(perturbed), "remarks": diverged}
            found.append(row_start(groups, group.scheme, group.setting) | row)
    if not found:
        return None
    columns = [
        SCHEME,
        *setting_columns(groups),
        *(Column(name, name.replace("_", ", "), number("{:.3f}")) for name in LOSSES),
        Column("recovery", "updates to recover", number("{:.0f}", never="not recovered")),
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


def recovery(run: Run) -> float:
    """Updates from the change to the end of the first window as good as the one before it; infinite: none is."""
    perturbed = int(run.summary["perturbation"]["step"])
    table = rows(run, "steps", "step", "loss")
    steps, losses = table["step"].to_numpy(dtype=float), table["loss"].to_numpy(dtype=float)
    before = losses[(steps > perturbed - WINDOW) & (steps <= perturbed)]
    for end in steps[steps >= perturbed + WINDOW]:
        window = losses[(steps > end - WINDOW) & (steps <= end)]
        if len(before) and np.mean(window) <= np.mean(before):  # NaN, of a run that diverged, is not
            return float(end - perturbed)
    return math.inf
