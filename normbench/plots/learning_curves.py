"""Validation error while training, against the images seen and against the seconds it took."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from normbench.analysis.groups import Group, Groups, Setting, label
from normbench.analysis.measured import best_settings, rows
from normbench.plots.drawing import Figure, finish, grid, legend, omitted, panels, plain_ticks, plural, threads
from normbench.plots.palette import Style, palette
from normbench.runs import Run

NAME, TITLE = "learning_curves", "Learning curves"
PANELS = 8
DRAWN = ("complete", "diverged")
AXES = {"samples": "training images seen", "train_seconds": "seconds of training"}


def draw(groups: Groups) -> list[Figure]:
    able = [s for s, by_scheme in groups.settings.items() if any(group.having(*DRAWN) for group in by_scheme.values())]
    shown: list[Setting] = []
    curves: dict[Run, pd.DataFrame] = {}
    for setting in best_settings(groups, able, PANELS):
        members: list[Run] = [run for g in groups.settings[setting].values() for run in g.having(*DRAWN)]
        found = {run: curve for run in members if len(curve := _curve(run)) > 1}
        curves |= found
        shown += [setting] if found else []
    if not curves:
        return [Figure(NAME, TITLE, "Not drawn: no run has evaluated its validation set twice (option evaluations).")]
    canvas, pairs = _panels(len(shown))
    styles = palette(groups.schemes)
    positive = [float(curve.error[curve.error > 0].min()) for curve in curves.values() if (curve.error > 0).any()]
    floor = min(positive, default=0.1) / 2
    zero = any((curve.error <= 0).any() for curve in curves.values())
    curves = {run: curve.assign(error=curve.error.clip(lower=floor)) for run, curve in curves.items()}
    for pair, setting in zip(pairs, shown, strict=True):
        for ax, (x, words) in zip(pair, AXES.items(), strict=True):
            for group in groups.settings[setting].values():
                _draw_group(ax, group, curves, styles[group.scheme], x)
            ax.set_xlim(left=0)
            ax.set_xlabel(words, fontsize=8)
        pair[0].xaxis.set_major_formatter(EngFormatter(sep=""))
        pair[0].set_title(label(setting, "" if len(shown) == 1 else "all runs"))
    pairs[0][0].set_yscale("log")
    plain_ticks(pairs[0][0].yaxis)
    canvas.supylabel("validation error (%)", fontsize=9)
    complete, diverged = (sum(run.status == status for run in curves) for status in DRAWN)
    cross = Line2D([], [], color="#555555", marker="x", linestyle="", label="diverged")
    schemes = {groups.scheme_of(run) for run in curves}
    drawn = {scheme: styles[scheme] for scheme in groups.schemes if scheme in schemes}
    legend(canvas, drawn, [cross] * bool(diverged))
    parts = [
        f"Error on the validation set (percent, logarithmic) while training, from {plural(complete, 'complete run')}:",
        "against the training images seen, and against the seconds of training on this machine, without evaluating",
        "and measuring (means over seeds at the same evaluation). Line: mean over seeds; thin lines: seeds. Lower is",
        "better; the steeper the fall at the left, the faster the start.",
        f"Lines that end in a cross: {plural(diverged, 'run')} that diverged after it." if diverged else "",
        f"Errors of zero are drawn as {floor:.2g}." if zero else "",
        omitted(PANELS, able, "settings"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def _panels(count: int) -> tuple[Canvas, list[list[Axes]]]:
    """Two panels for each setting: side by side for one, otherwise one above the other."""
    if count == 1:
        canvas, axes = panels(1, 2, 5.5, 3.4, sharey=True)
        return canvas, axes
    lines, columns = grid(count)
    canvas, axes = panels(2 * lines, columns, max(2.7, 11 / columns) if columns > 1 else 7.0, 2.1, sharey=True)
    pairs = [[axes[2 * i][j], axes[2 * i + 1][j]] for i in range(lines) for j in range(columns)]
    for ax in (ax for pair in pairs[count:] for ax in pair):
        ax.set_visible(False)
    return canvas, pairs[:count]


def _curve(run: Run) -> pd.DataFrame:
    """Columns samples, train_seconds and error (percent); only evaluations that gave a number."""
    found = rows(run, "epochs", *AXES, "validation_accuracy")[[*AXES, "validation_accuracy"]].to_numpy(dtype=float)
    found = found[np.isfinite(found).all(axis=1)]
    samples, seconds, accuracy = found[np.unique(found[:, 0], return_index=True)[1]].T
    return pd.DataFrame({"samples": samples, "train_seconds": seconds, "error": 100 * (1 - accuracy)})


def _draw_group(ax: Axes, group: Group, curves: dict[Run, pd.DataFrame], style: Style, x: str) -> None:
    complete = [curves[run] for run in group.having("complete") if run in curves]
    if len(complete) > 1:
        threads(ax, [(curve[x], curve.error) for curve in complete], style.color)
    if complete:
        common = set.intersection(*(set(curve.samples) for curve in complete))  # a missing seed must not bend the mean
        kept = [curve[curve.samples.isin(common)][[x, "error"]].to_numpy() for curve in complete]
        ax.plot(*np.mean(kept, axis=0).T, markevery=max(1, len(common) // 6), **style.drawn)
    diverged = [curves[run] for run in group.having("diverged") if run in curves]
    threads(ax, [(curve[x], curve.error) for curve in diverged], style.color, width=0.8, alpha=1)
    for curve in diverged:
        ax.plot(curve[x].iloc[-1:], curve.error.iloc[-1:], "x", color=style.color, markersize=7)
