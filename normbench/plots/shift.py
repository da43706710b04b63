"""Internal covariate shift: how far each layer's values have moved, as distributions and image by image."""

from __future__ import annotations

import pandas as pd

from normbench.analysis.groups import Groups, label
from normbench.analysis.measured import choose, rows
from normbench.plots.by_layer import draw_runs, entering, evenly, in_order, mean_over_seeds
from normbench.plots.drawing import Figure, finish, legend, omitted, panels, symlog_axis
from normbench.plots.palette import palette
from normbench.plots.ribbons import step_axis
from normbench.runs import Run

NAME, TITLE = "shift", "Internal covariate shift: how far each layer's values have moved since the start"
LAYERS = 5
ROWS = {"w1_scaled_mean": "distribution (W1)", "moved_scaled_mean": "image by image", "drift_scaled_mean": "mean"}
Curves = dict[str, pd.DataFrame]  # layer -> step, ROWS, floor


def draw(groups: Groups) -> list[Figure]:
    """A row per view, a column per layer."""
    chosen = choose(groups, "shift", "bn_mode", "since", *ROWS)
    measured = {s: [c for e in members if (c := curves(e))] for s, members in chosen.runs.items()} if chosen else {}
    measured = {scheme: runs for scheme, runs in measured.items() if runs}
    if not chosen or not measured:
        return [Figure(NAME, TITLE, "Not drawn: no complete run has measured it. The instrument shift supplies it.")]
    every = in_order(run for runs in measured.values() for run in runs)
    layers, styles = evenly(every, LAYERS), palette(groups.schemes)
    canvas, axes = panels(len(ROWS), len(layers), max(2.2, 11 / len(layers)), 1.9, sharex=True, sharey="row")
    for j, layer in enumerate(layers):
        for scheme, runs in measured.items():
            tables = [run[layer].set_index("step") for run in runs if layer in run]
            for i, column in enumerate(ROWS):
                draw_runs(axes[i][j], [table[column] for table in tables], styles[scheme])
            if tables:
                floor = mean_over_seeds([table.floor for table in tables])
                axes[0][j].plot(floor.index, floor, color=styles[scheme].color, linewidth=0.9, linestyle=":")
        axes[0][j].set_title(layer)
    bent = ""
    for row, (column, title) in zip(axes, ROWS.items(), strict=True):
        row[0].set_ylabel(title)
        drawn = (run[layer] for runs in measured.values() for run in runs for layer in layers if layer in run)
        bent = symlog_axis(row[0], "y", pd.concat([table[column] for table in drawn])) or bent
        row[0].set_ylim(bottom=0)
    steps = pd.concat([table.step for runs in measured.values() for run in runs for table in run.values()])
    if steps[steps > 0].min() < 0.01 * steps.max():  # snapshots that are denser at the start
        step_axis(axes[0][0], int(steps.max()))
    canvas.supxlabel("training step", fontsize=9)
    legend(canvas, {scheme: styles[scheme] for scheme in measured})
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    caption = _caption(bent, chosen.words, omitted(LAYERS, every, "layers"))
    return [finish(NAME, title, caption, canvas, groups.synthetic)]


def curves(run: Run) -> Curves:
    """Layer -> its shift since the start in bn_mode "probe", of what enters its activation; in network order."""
    table = rows(run, "shift", "step", *ROWS)
    if not {"bn_mode", "since"} <= set(table.columns):
        return {}
    result = {}
    for layer, part in entering(table[table.bn_mode == "probe"]).groupby("layer", sort=False):
        floor = part[part.since == "halves"].set_index("step").w1_scaled_mean.rename("floor")
        since = part[part.since == "start"][["step", *ROWS]].join(floor, on="step")
        if len(since):
            result[str(layer)] = since
    return result


def _caption(*sentences: str) -> str:
    parts = [
        "Thick lines: means over seeds, thin: seeds; of what enters each layer's activation (normalized, or linear",
        "without a norm; bn_mode probe), on a fixed set of validation images, in standard deviations of a unit,",
        "averaged over units; norms that use the batch work with the statistics of these images. Top: Wasserstein-1",
        "distance between a unit's distribution now and at step 0. Dotted: the same between two halves of the images",
        "at one time: what another choice of images would change. Middle: how far the value of one image has moved, on",
        "average, in the same units: never less. A norm that pins the distribution while every image moves is low",
        "above and high here. Bottom: how far a unit's mean has moved.",
    ]
    return " ".join(filter(None, [*parts, *sentences]))
