"""What each scheme costs: time per update, memory for the backward pass, error for the seconds spent."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from normbench.analysis.groups import order
from normbench.analysis.measured import rows
from normbench.plots.drawing import omitted, plain_ticks
from normbench.plots.facets import facets, name_places, places, points
from normbench.plots.palette import Style
from normbench.plots.view import Drawn, View, has_columns
from normbench.runs import Run

TIME, MEMORY, ERROR = "ms per update", "kB for the backward pass", "test error (%) by seconds of training"
SETTINGS = 2


def draw(view: View) -> Drawn | None:
    """A row per setting but lr and batch size; without a column for memory where nobody measured it."""
    if "seconds.training" not in view.best:
        return None
    runs = view.best[(view.best["status"] == "complete") & (view.best["seconds.training"] > 0)]
    if runs.empty:
        return None
    runs, settings = view.panels(runs, "batch_size", most=SETTINGS)
    several = runs["batch_size"].nunique() > 1  # otherwise the schemes stand side by side
    at = places(runs["batch_size"])[0] if several else {s: float(i) for i, s in enumerate(order(runs["scheme"]))}
    seconds = runs["seconds.training"].astype(float)
    runs = runs.assign(row=runs["setting"], run=runs.index, x=runs["batch_size" if several else "scheme"].map(at))
    error = 100 * (1 - runs["test_accuracy"].astype(float))
    data = pd.concat([
        runs.assign(column=TIME, y=1000 * seconds / runs["steps"].astype(float)),
        runs.assign(column=MEMORY, y=[kilobytes(view.members[name]) for name in runs.index]),
        runs.assign(column=ERROR, x=seconds, y=error.clip(lower=0.01)),
    ]).dropna(subset="y").drop(columns="status")  # fmt: skip
    draw = partial(_draw, several=several)
    canvas, axes = facets(data, draw, view.styles, (3.4, 2.7), sharex=False, sharey=False)
    for (row, column), ax in axes.items():
        if column == ERROR:
            ax.set(xscale="log", yscale="log", xlabel="seconds of training")
            ax.margins(0.12)
            plain_ticks(ax.xaxis)
            plain_ticks(ax.yaxis)
        else:
            measured = set(data[(data["row"] == row) & (data["column"] == column)]["x"])
            name_places(ax, {name: x for name, x in at.items() if x in measured}, most=len(at))
            ax.set_ylim(0, 1.1 * float(data[data["column"] == column]["y"].max()))
            ax.set_xlabel("batch size" if several else "")
    times = data[(data["column"] == TIME) & (not several or data["x"] == max(at.values()))]
    medians = times.groupby("scheme")["y"].median()
    parts = [
        f"Time per update{' at the largest batch size' * several}: {medians.idxmin()} {medians.min():.3g} ms,",
        f"{medians.idxmax()} {medians.max():.3g} ms." if len(medians) > 1 else "the only scheme.",
        f"From {len(runs)} complete runs; training alone, without evaluating and measuring, on this machine with",
        "whatever else it was doing; dots: runs, marks: their medians.",
        "Memory: what is kept for the backward pass of one batch, without parameters and buffers."
        if (data["column"] == MEMORY).any()
        else "Memory was not measured (the instrument memory_time supplies it).",
        "Right: test error at the end against seconds of training, both logarithmic: dots are seeds, marks their",
        "means, lines join batch sizes (written beside them)." if several else "means.",
        "Down and to the left is better.",
        omitted(SETTINGS, settings, "settings"),
    ]
    return Drawn(canvas, view.line(runs, *["batch_size"] * several), " ".join(filter(None, parts)))


def kilobytes(run: Run) -> float:
    """Kept for the backward pass of a batch; NaN where it was not measured."""
    if not has_columns(run, "memory_time", ("saved",)):
        return np.nan
    saved = rows(run, "memory_time", "saved")["saved"].dropna()
    return float(saved.iloc[-1]) / 1000 if len(saved) else np.nan


def _draw(ax: Axes, part: pd.DataFrame, style: Style, aside: float, several: bool) -> None:
    if part["column"].iloc[0] != ERROR:
        points(ax, part, style, aside if several else 0.0, join=several, center="median")
        return
    ax.plot(part["x"], part["y"], ".", color=style.color, markersize=3.5, alpha=0.6)
    means = part.groupby("batch_size")[["x", "y"]].mean()
    ax.plot(means["x"], means["y"], **style.drawn)
    for size, (x, y) in means.iterrows() if several else ():
        ax.annotate(f"{size:g}", (x, y), (4, 3), textcoords="offset points", fontsize=6.5, color=style.color)
