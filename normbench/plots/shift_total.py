"""How far each layer's input has moved in all, beside how much its gradient is moved by the layers before it."""

from __future__ import annotations

import pandas as pd

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cells, label
from normbench.analysis.measured import choose, rows
from normbench.plots.by_layer import draw_by_layer, entering, in_order, layer_axis, mean_over_seeds, once
from normbench.plots.drawing import Figure, finish, legend, panels, plain_ticks, say
from normbench.plots.palette import palette

NAME, TITLE = "shift_total", "Internal covariate shift in total: distributions and gradients"
VIEWS = {
    "start": "distribution: W1 from the start to the end",
    "path": "distribution: W1 along the way, summed",
    "gradient": "gradient: |G − G'| / |G|, median of snapshots",
}


def draw(cells: Cells) -> list[Figure]:
    """A panel per view of the shift, layers from left to right."""
    chosen = choose(cells, "gradient_shift", "relative") or choose(cells, "shift", "way", "since", "w1_scaled_mean")
    if chosen is None:
        return [
            Figure(NAME, TITLE, "Not drawn: the instruments shift and gradient_shift supply it (instruments=full).")
        ]
    found = {
        s: {v: [r for e in es if len(r := total(e, v))] for v in (*VIEWS, "halves")} for s, es in chosen.runs.items()
    }
    layers = in_order(run.index for views in found.values() for runs in views.values() for run in runs)
    styles = palette(cells.schemes)
    canvas, axes = panels(1, len(VIEWS), 3.8, 3.2)
    for ax, (view, title) in zip(axes[0], VIEWS.items(), strict=True):
        for scheme, views in found.items():
            draw_by_layer(ax, layers, views[view], styles[scheme])
            if view == "start":
                floor = styles[scheme].drawn | {"marker": "", "linestyle": ":", "linewidth": 0.9}
                if halves := [once(run).reindex(layers) for run in views["halves"]]:
                    ax.plot(range(len(layers)), mean_over_seeds(halves), **floor)
        ax.set_title(title)
        layer_axis(ax, layers)
        known = pd.concat([run for views in found.values() for run in views[view]] or [pd.Series(dtype=float)])
        if len(known) and 0 < 30 * known.min() < known.max():  # a scheme that travels far would flatten the others
            ax.set_yscale("log")
            plain_ticks(ax.yaxis)
        else:
            ax.set_ylim(bottom=0)
    if not any(views["gradient"] for views in found.values()):
        why = "not measured:\nthe instrument gradient_shift\n(instruments=full) supplies it"
        say(axes[0][2], why)
    axes[0][0].set_ylabel("standard deviations of a unit")
    axes[0][1].set_ylabel("standard deviations of a unit")
    legend(canvas, {scheme: styles[scheme] for scheme in chosen.runs})
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    parts = [
        "Two definitions of the same idea, by layer. Dots: seeds; lines: means. Left: Wasserstein-1 distance between",
        "a unit's distribution at step 0 and at the end, mean over units, in standard deviations, of what enters",
        "each layer's activation (normalized, or linear without a norm; way probe: fixed validation images, batch",
        "statistics of them). Dotted: the floor, the same distance between two halves of the images at one time.",
        "Middle: the distances from each snapshot to the next, added up: how far it travelled; only comparable over",
        "the same snapshots. Right: how much the update of the layers before changes a layer's gradient (Santurkar",
        "et al. 2018, definition 2.1; the first layer has none before it), of the weights in training mode. A scheme",
        "that is low at the left need not be low at the right.",
        chosen.words,
    ]
    return [finish(NAME, title, " ".join(parts), canvas, cells.synthetic)]


def total(entry: Entry, view: str) -> pd.Series:
    """Layer -> one of VIEWS, or "halves", at the last snapshot (of the gradient: the median over all of them)."""
    if view == "gradient":
        table = rows(entry, "gradient_shift", "step", "relative")
        return table[table.relative.notna()].groupby("layer", sort=False).relative.median()
    table = rows(entry, "shift", "step", "w1_scaled_mean")
    if "since" not in table.columns:
        return pd.Series(dtype=float)
    table = entering(table[(table.way == "probe") & (table.since == view)])
    table = table[(table.step == table.step.max()) & table.w1_scaled_mean.notna()]
    return table.set_index("layer").w1_scaled_mean
