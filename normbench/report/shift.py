"""Internal covariate shift: how far each layer's values have moved, as distributions and image by image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from normbench.report.cells import Cells, Setting, label
from normbench.report.drawing import Figure, finish, legend, omitted, panels
from normbench.report.entries import Entry
from normbench.report.palette import order, palette
from normbench.report.ribbons import step_axis

NAME, TITLE = "shift", "Internal covariate shift: how far each layer's values have moved since the start"
LAYERS, SCHEMES = 5, 8
ROWS = {"w1_scaled_mean": "distribution (W1)", "moved_scaled_mean": "image by image", "drift_scaled_mean": "mean"}
Curves = dict[str, pd.DataFrame]  # layer -> step, ROWS, floor


def draw(cells: Cells) -> list[Figure]:
    """The first setting in which the most schemes were measured; the mean over seeds."""
    best: tuple[Setting, dict[str, list[Curves]]] = (), {}
    for setting, by_scheme in cells.settings.items():
        found = {scheme: [c for e in cell.entries if (c := curves(e))] for scheme, cell in by_scheme.items()}
        found = {scheme: runs for scheme, runs in found.items() if runs}
        best = (setting, found) if len(found) > len(best[1]) else best
    setting, measured = best
    if not measured:
        return [Figure(NAME, TITLE, "Not drawn: no finished run has measured it. The instrument shift supplies it.")]
    schemes = order(measured)[:SCHEMES]
    every = max((list(runs[0]) for runs in measured.values()), key=len)
    layers = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(LAYERS, len(every))).astype(int))]
    styles = palette(cells.schemes)
    canvas, axes = panels(len(ROWS), len(layers), max(2.2, 11 / len(layers)), 1.9, sharex=True, sharey="row")
    for j, layer in enumerate(layers):
        for i, (column, title) in enumerate(ROWS.items()):
            ax = axes[i][j]
            for scheme in schemes:
                if (table := _mean([run[layer] for run in measured[scheme] if layer in run])) is not None:
                    ax.plot(table.index, table[column], markevery=max(1, len(table) // 5), **styles[scheme].drawn)
                    if column == "w1_scaled_mean":
                        ax.plot(table.index, table.floor, color=styles[scheme].color, linewidth=0.7, linestyle=":")
            if j == 0:
                ax.set_ylabel(title)
        axes[0][j].set_title(layer)
    for row in axes:  # once all is drawn: the panels of a row share their axis
        row[0].set_ylim(bottom=0)
    steps = pd.concat([table.step for runs in measured.values() for run in runs for table in run.values()])
    if steps[steps > 0].min() < 0.01 * steps.max():  # snapshots that are denser at the start
        step_axis(axes[0][0], int(steps.max()))
    canvas.supxlabel("training step", fontsize=9)
    legend(canvas, {scheme: styles[scheme] for scheme in schemes})
    title = TITLE if not setting else f"{TITLE}: {label(setting)}"
    caption = _caption({s: len(measured[s]) for s in schemes}, omitted(LAYERS, every, "layers"))
    return [finish(NAME, title, caption, canvas, cells.synthetic)]


def curves(entry: Entry) -> Curves:
    """Layer -> its shift since the start in the way "probe", of what enters its activation; in network order."""
    table = entry.table("shift")
    if not {"step", "layer", "tensor", "way", "since", *ROWS} <= set(table.columns):
        return {}
    table = table[(table.way == "probe") & table.tensor.isin(["normalized", "linear"])]
    result = {}
    for layer, rows in table.groupby("layer", sort=False):
        rows = rows[rows.tensor == ("normalized" if (rows.tensor == "normalized").any() else "linear")]
        floor = rows[rows.since == "halves"].set_index("step").w1_scaled_mean.rename("floor")
        since = rows[rows.since == "start"][["step", *ROWS]].join(floor, on="step")
        if len(since):
            result[str(layer)] = since
    return result


def _mean(runs: Sequence[pd.DataFrame]) -> pd.DataFrame | None:
    """Over the runs, at the steps that all of them have."""
    tables = [run.set_index("step") for run in runs]
    if not tables:
        return None
    common = sorted(set.intersection(*(set(table.index) for table in tables)))
    return pd.concat([table.loc[common] for table in tables]).groupby(level=0).mean()


def _caption(runs: dict[str, int], rest: str) -> str:
    counts = ", ".join(f"{scheme} {count}" for scheme, count in runs.items())
    parts = [
        f"Means over seeds ({counts}) of what enters each layer's activation (normalized, or linear without a norm),",
        "on a fixed set of validation images, in standard deviations of a unit, averaged over units; norms that use",
        "the batch work with the statistics of these images. Top: Wasserstein-1 distance between a unit's distribution",
        "now and at step 0. Dotted: the same between two halves of the images at one time: what another choice of",
        "images would change. Middle: how far the value of one image has moved, on average, in the same units: never",
        "less. A norm that pins the distribution while every image moves is low above and high here. Bottom: how far a",
        "unit's mean has moved.",
    ]
    return " ".join([*parts, rest]).strip()
