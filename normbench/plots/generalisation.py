"""Validation loss at equal training loss: does a scheme generalise better, or does it only train faster?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cells, label
from normbench.analysis.measured import best_settings, rows
from normbench.plots.by_layer import mean_over_seeds
from normbench.plots.drawing import Figure, finish, grid, legend, omitted, panels, plain_ticks, plural, threads
from normbench.plots.palette import palette

NAME, TITLE = "generalisation", "Generalisation at equal training loss"
PANELS = 6


def draw(cells: Cells) -> list[Figure]:
    able = [s for s, by_scheme in cells.settings.items() if any(cell.having("complete") for cell in by_scheme.values())]
    styles, drawn = palette(cells.schemes), {}
    for setting in best_settings(cells, able, PANELS):
        found = {
            s: [c for e in cell.having("complete") if len(c := path(e)) > 1]
            for s, cell in cells.settings[setting].items()
        }
        if found := {scheme: runs for scheme, runs in found.items() if runs}:
            drawn[setting] = found
    if not drawn:
        missing = (
            "Not drawn: no run has two evaluations with training losses before them (options evaluations, log_every)."
        )
        return [Figure(NAME, TITLE, missing)]
    lines, columns = grid(len(drawn), 3)
    canvas, axes = panels(lines, columns, min(5.0, 11 / columns), 3.2, sharex=True, sharey=True)
    flat = [ax for row in axes for ax in row]
    for ax, (setting, by_scheme) in zip(flat, drawn.items(), strict=False):
        for scheme, runs in by_scheme.items():
            style = styles[scheme]
            if len(runs) > 1:
                threads(ax, [(run.train, run.validation) for run in runs], style.color)
            train, validation = (mean_over_seeds([run[name] for run in runs]) for name in ("train", "validation"))
            ax.plot(train, validation, markevery=max(1, len(train) // 5), **style.drawn)
        ax.set_title(label(setting, ""))
    for ax in flat[len(drawn) :]:
        ax.set_visible(False)
    ax = flat[0]
    ax.set_xscale("log")
    ax.set_yscale("log")
    low, high = ax.get_xlim()
    for ax in flat[: len(drawn)]:
        ax.plot([low, high], [low, high], color="#999999", linewidth=0.8, zorder=0, scalex=False, scaley=False)
    plain_ticks(flat[0].xaxis)
    plain_ticks(flat[0].yaxis)
    canvas.supxlabel("training loss", fontsize=9)
    canvas.supylabel("validation loss", fontsize=9)
    legend(canvas, {s: styles[s] for s in cells.schemes if any(s in by_scheme for by_scheme in drawn.values())})
    count = sum(len(runs) for by_scheme in drawn.values() for runs in by_scheme.values())
    parts = [
        "Loss on the validation set (in the mode of inference) against training loss, from",
        f"{plural(count, 'complete run')}; training goes from the upper right to the lower left. Training loss: mean",
        "over the mini-batches since the evaluation before, as they were trained on: before each update, with batch",
        "statistics and dropout, so that it lags a little behind. Thin lines: seeds; thick: their means at the same",
        "evaluation. Of two schemes at the same training loss the lower one generalises better; on the grey line",
        "both losses are equal.",
        omitted(PANELS, able, "settings"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, cells.synthetic)]


def path(entry: Entry) -> pd.DataFrame:
    """At each evaluation but the first: `train`, the mean training loss since the one before, and `validation`."""
    steps, losses = _columns(rows(entry, "steps", "step", "loss"), "loss")
    ends, validation = _columns(rows(entry, "epochs", "step", "validation_loss"), "validation_loss")
    # Rows of `steps` are means since the row before, so each counts as often as it has steps.
    weights = np.diff(steps, prepend=0)
    places = np.searchsorted(ends, steps, side="left")  # a row belongs to the next evaluation
    total, count = (np.bincount(places, w, len(ends) + 1)[: len(ends)] for w in (weights * losses, weights))
    train = np.divide(total, count, out=np.full(len(ends), np.nan), where=count > 0)
    kept = (train > 0) & (validation > 0)
    return pd.DataFrame({"train": train[kept], "validation": validation[kept]}, index=ends[kept])


def _columns(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """`step` and another column, without missing numbers and steps that come twice, in ascending order."""
    found = table[["step", name]].to_numpy(dtype=float)
    found = found[np.isfinite(found).all(axis=1)]
    step, value = found[np.unique(found[:, 0], return_index=True)[1]].T
    return step, value
