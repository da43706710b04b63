"""Recurrent networks: how the values change along a sequence."""

from __future__ import annotations

import pandas as pd

from normbench.analysis.groups import Groups, label
from normbench.analysis.measured import choose, rows
from normbench.plots.by_layer import draw_runs, evenly, in_order
from normbench.plots.drawing import Figure, finish, legend, omitted, panels
from normbench.plots.palette import palette
from normbench.runs import Run

NAME, TITLE = "time_steps", "Along the sequence"
TENSORS = ("linear", "normalized", "activation")
LAYERS = 2


def draw(groups: Groups) -> list[Figure]:
    """A column per tensor; rows of standard deviation and mean, for each layer."""
    chosen = choose(groups, "time_steps", "bn_mode", "time", "mean", "std")
    if chosen is None:
        missing = "Not drawn: no complete run is of a recurrent network (model=rnn) with the instrument time_steps."
        return [Figure(NAME, TITLE, missing)]
    every = in_order(_last(run).layer for members in chosen.runs.values() for run in members)
    layers, styles = evenly(every, LAYERS), palette(groups.schemes)
    lines = [(layer, number) for layer in layers for number in ("std", "mean")]
    canvas, axes = panels(len(lines), len(TENSORS), 3.8, 2.2, sharex=True, sharey="row")
    for row, (layer, number) in zip(axes, lines, strict=True):
        for ax, tensor in zip(row, TENSORS, strict=True):
            for scheme, members in chosen.runs.items():
                found = [series for run in members if len(series := along(run, layer, tensor, number))]
                draw_runs(ax, found, styles[scheme])
        where = f"{layer}: " if len(every) > 1 else ""
        row[0].set_ylabel(where + {"std": "standard deviation", "mean": "mean"}[number])
    for ax, tensor in zip(axes[0], TENSORS, strict=True):
        ax.set_title(tensor)
    canvas.supxlabel("time step", fontsize=9)
    legend(canvas, {scheme: styles[scheme] for scheme in chosen.runs})
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    parts = [
        "Mean and standard deviation over images and units at each time step, after the last update; thin lines:",
        "seeds, thick: their mean. linear: W_x x + W_h h before any norm; normalized: what enters the gates (without",
        "a norm the same as linear, and not drawn twice); activation: h. Way probe: norms that use the batch work",
        "with the statistics of these images, a set for each time step. Level lines: the network sees a steady",
        "signal along the sequence.",
        chosen.words,
        omitted(LAYERS, every, "layers"),
    ]
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def along(run: Run, layer: str, tensor: str, number: str) -> pd.Series:
    """Time step -> `number`, "mean" or "std", at the last snapshot."""
    table = _last(run)
    table = table[(table.layer == layer) & (table.tensor == tensor) & table[number].notna()]
    return table.set_index("time")[number].sort_index()


def _last(run: Run) -> pd.DataFrame:
    table = rows(run, "time_steps", "step", "time", "mean", "std")
    table = table[table.bn_mode == "probe"] if "bn_mode" in table.columns else table
    return table[table.step == table.step.max()]
