"""Tables of what single instruments measured.

What other statistics at inference would have given, and how much of the loss against `none` they give back; what a
sudden change of one block's weights did, and how long training took to get over it; which statistics switchable
normalization has chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from normbench.analysis.best_lr import choices
from normbench.analysis.groups import Group, Groups, label
from normbench.analysis.measured import rows
from normbench.analysis.notes import interval_covers
from normbench.analysis.statistics import estimate
from normbench.analysis.tables import (
    REMARKS,
    SCHEME,
    Column,
    Table,
    format_list,
    number,
    row_start,
    setting_columns,
    without_result,
)
from normbench.runs import Run

NAME, TITLE = "inference_statistics", "Statistics at inference"
KINDS = ("ema", "averages", "precise", "batch")
LOSS = 1.0  # points of accuracy
PARTS = {"loss": "loss against none, points", "recovered": "recovered by precise", "lost": "lost in training"}
WINDOW = 20  # updates whose mean loss is compared
SHARES = [f"{of}_{part}" for of in ("mean", "var") for part in ("instance", "layer", "batch")]
LOSSES = [f"{mode}_{when}" for mode in ("training", "evaluation") for when in ("before", "after")]


def accuracies(run: Run) -> dict[str, float]:
    """Kind of statistics -> validation accuracy with it, after the last step."""
    table = rows(run, "statistics", "step", "accuracy")
    if not {"statistics", "layer"} <= set(table.columns):
        return {}
    steps, values = table["step"].to_numpy(), table["accuracy"].to_numpy()  # arrays: a report asks 1,000 runs, twice
    last = (steps == steps.max(initial=-1)) & table["layer"].isna().to_numpy() & ~np.isnan(values)
    found = zip(table["statistics"].to_numpy()[last], values[last], strict=True)
    return {kind: float(value) for kind, value in found if kind in KINDS}


def inference_losses(groups: Groups) -> list[str]:
    """A sentence where a scheme, at its own best lr, loses more than a point to its statistics at inference."""
    found = []
    for choice in (choice for by_scheme in choices(groups).values() for choice in by_scheme.values()):
        own = choice.shown.values.get("norm.statistics", "ema")
        measured = [accuracies(run) for run in choice.shown.having("complete")]
        pairs = [(of_run[own], of_run["precise"]) for of_run in measured if {own, "precise"} <= set(of_run)]
        if pairs:
            ours, precise = (100 * sum(values) / len(values) for values in zip(*pairs, strict=True))
            name = choice.scheme + (f" at {where}" if (where := label(choice.setting, "")) else "")
            words = f"{name}, {precise - ours:.2f} points ({ours:.2f}% with {own}, {precise:.2f}% with precise)"
            found += [(precise - ours, words)] if precise - ours > LOSS else []
    if not found:
        return []
    worst = format_list([words for _, words in sorted(found, key=lambda each: -each[0])])
    return [
        f"Validation accuracy lost to the statistics at inference, the weights being the same: {worst}. "
        "norm.statistics=precise compares training alone."
    ]


def inference_table(groups: Groups) -> Table:
    made = []
    for group in groups.groups:
        by_seed = {run.seed: accuracies(run) for run in group.having("complete")}
        measured = pd.DataFrame.from_dict(by_seed, "index", columns=KINDS, dtype=float).dropna(
            subset=["ema", "precise"]
        )
        if len(measured):
            row = _row(group, measured, groups.settings[group.setting].get("none"))
            made.append(row_start(groups, group.scheme, group.setting) | row)
    if not made:
        note = "No complete run of a scheme with running statistics has measured them. The instrument statistics does."
        return Table(NAME, TITLE, "", [], [], note)
    columns = [
        SCHEME,
        *setting_columns(groups),
        *(Column(f"{kind}_text", f"{kind} %", str, kind) for kind in KINDS),
        Column("n", "n"),
        *(Column(f"{part}_text", heading, str, part) for part, heading in PARTS.items()),
        Column("pairs", "pairs"),
        REMARKS,
    ]
    caption = (
        f"From {sum(row['n'] for row in made)} complete runs: validation accuracy of the same weights with each kind "
        "of statistics. ema: running averages over training; averages: over mini-batches "
        "at the last weights; precise: exact ones, layer by layer; batch: those of mini-batches of the run's own size. "
        "Then, paired by seed with none, everything else equal, in points: the loss with ema is what precise recovers "
        "and what was lost in training, because precise has no error of statistics left. ± is half the 95% Student t "
        f"interval over seeds, one by one: {interval_covers(groups.members, 'validation set')}."
    )
    return Table(NAME, TITLE, caption, columns, made)


def _row(group: Group, found: pd.DataFrame, none: Group | None) -> dict[str, Any]:
    """From a row of accuracies per seed: loss = none - ema = (precise - ema) + (none - precise), what re-estimation
    recovers and what was lost in training.
    """
    theirs = pd.Series(none.numbers("validation_accuracy") if none else {}, dtype=float)
    paired = found[found.index.isin(theirs.index)]
    split = {
        "loss": theirs[paired.index] - paired["ema"],
        "recovered": paired["precise"] - paired["ema"],
        "lost": theirs[paired.index] - paired["precise"],
    }
    row: dict[str, Any] = {"n": len(found), "pairs": len(paired)}
    for kind in KINDS:
        row |= _numbers(kind, found[kind].dropna().tolist())
    for part, values in split.items():
        row |= _numbers(part, values.tolist(), sign="+")
    missing = group.count("complete") - len(found)
    return row | {"remarks": ", ".join([*without_result(group), *[f"{missing} not measured"] * bool(missing)])}


def _numbers(name: str, values: Sequence[float], sign: str = "") -> dict[str, Any]:
    """Mean and interval as fractions of 1, and as text in percent or points."""
    found = estimate(values)
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_text": "–"}
    half = "" if found.half_width is None else f" ± {100 * found.half_width:.2f}"
    text = f"{100 * found.mean:{sign}.2f}{half}"
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_text": text}


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


def mixture_table(groups: Groups) -> Table | None:
    """The weights of the statistics in each layer of switchable normalization; None where no run has measured any."""
    found = []
    for group in (group for group in groups.groups if group.scheme.partition(" ")[0] == "switchable"):
        measured = [rows(run, "parameters", "step", "mean") for run in group.having("complete")]
        known = [table for table in measured if {"layer", "tensor"} <= set(table.columns)]
        last = [table[(table.step == table.step.max()) & table.tensor.isin(SHARES)] for table in known]
        for layer, of_layer in pd.concat(last).groupby("layer", sort=False) if last else ():
            row: dict[str, Any] = {"layer": layer, "n": int(of_layer.tensor.value_counts().max())}
            for share in SHARES:
                row |= _numbers(share, of_layer.loc[of_layer.tensor == share, "mean"].tolist())
            found.append(row_start(groups, group.scheme, group.setting) | row)
    if not found:
        return None
    headings = {share: share.replace("_", " from ").replace("var", "variance") + " %" for share in SHARES}
    columns = [
        SCHEME,
        *setting_columns(groups),
        Column("layer", "layer", numeric=False),
        *(Column(f"{share}_text", heading, str, share) for share, heading in headings.items()),
        Column("n", "n"),
    ]
    caption = (
        "After the last step of the complete runs: the weights, learned by each layer, of the mean and of the variance "
        "of each instance (height, width), of each example's layer (with all features) and of the batch (with all "
        "examples; in inference, of the running averages). All start equal; those of the means sum to 100%, and so do "
        "those of the variances. A fully connected layer has no instances. ± is half the 95% Student t interval over "
        "seeds."
    )
    return Table("mixture", "Which statistics the layers choose", caption, columns, found)


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
