"""Validation error against the number of training images seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, NullFormatter

from normbench.report.cells import Cell, Cells, label
from normbench.report.drawing import Figure, finish, grid, legend, log_ticks, omitted, panels, plural
from normbench.report.entries import Entry
from normbench.report.palette import Style, palette

NAME, TITLE = "learning_curves", "Learning curves"
PANELS = 20
DRAWN = ("complete", "diverged")


def draw(cells: Cells) -> list[Figure]:
    curves = {entry: curve for entry in cells.entries if entry.status in DRAWN and len(curve := _curve(entry)) > 1}
    by_setting = [
        (setting, [cell for cell in by_scheme.values() if any(entry in curves for entry in cell.entries)])
        for setting, by_scheme in cells.settings.items()
    ]
    by_setting = [(setting, drawn) for setting, drawn in by_setting if drawn]
    if not by_setting:
        return [Figure(NAME, TITLE, "Not drawn: no run has evaluated its validation set twice (option evaluations).")]
    shown = by_setting[:PANELS]
    rows, columns = grid(len(shown))
    wide = 7.0 if columns == 1 else max(2.7, 11 / columns)
    canvas, axes = panels(rows, columns, wide, 3.4 if rows == 1 else 2.7, sharex=False, sharey=True)
    flat = [ax for row in axes for ax in row]
    styles = palette(cells.schemes)
    floor = min((float(c.error[c.error > 0].min()) for c in curves.values() if (c.error > 0).any()), default=0.1) / 2
    zero = any((curve.error <= 0).any() for curve in curves.values())
    for ax, (setting, drawn) in zip(flat, shown, strict=False):
        for cell in drawn:
            _draw_cell(ax, cell, curves, styles[cell.scheme], floor)
        ax.set_title(label(setting, "" if len(shown) == 1 else "all runs"))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlim(left=0)
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    _percent_axis(flat[0])
    canvas.supxlabel("training images seen", fontsize=9)
    canvas.supylabel("validation error (%)", fontsize=9)
    drawn_entries = [e for _, drawn in shown for cell in drawn for e in cell.entries if e in curves]
    complete, diverged = (sum(entry.status == status for entry in drawn_entries) for status in DRAWN)
    cross = Line2D([], [], color="#555555", marker="x", linestyle="", label="diverged")
    legend(
        canvas,
        {s: styles[s] for s in cells.schemes if any(e.scheme == s for e in drawn_entries)},
        [cross] * bool(diverged),
    )
    parts = [
        f"Error on the validation set (percent, logarithmic) while training, from {plural(complete, 'complete run')}.",
        "Line: mean over seeds. Band: from the best to the worst seed, not an interval. Lower is better;",
        "the steeper the fall at the left, the faster the start.",
        f"Thin lines that end in a cross: {plural(diverged, 'run')} that diverged after it." if diverged else "",
        f"Errors of zero are drawn as {floor:.2g}." if zero else "",
        omitted(PANELS, by_setting, "settings"),
    ]
    caption = " ".join(filter(None, parts))
    return [finish(NAME, TITLE, caption, canvas, cells.synthetic)]


def _curve(entry: Entry) -> pd.DataFrame:
    """Columns samples and error (percent); only evaluations that gave a number."""
    table = entry.table("epochs")
    if not {"samples", "validation_accuracy"} <= set(table.columns):
        return pd.DataFrame({"samples": [], "error": []})
    accuracy = pd.to_numeric(table.validation_accuracy, errors="coerce")
    curve = pd.DataFrame({"samples": pd.to_numeric(table.samples, errors="coerce"), "error": 100 * (1 - accuracy)})
    return curve[np.isfinite(curve).all(axis=1)].drop_duplicates("samples")


def _draw_cell(ax: Axes, cell: Cell, curves: dict[Entry, pd.DataFrame], style: Style, floor: float) -> None:
    complete = [curves[entry].set_index("samples").error for entry in cell.having("complete") if entry in curves]
    if complete:
        table = pd.concat(complete, axis=1, join="inner").clip(lower=floor)  # where one seed is missing, so is the mean
        every = max(1, len(table) // 6)
        ax.plot(table.index, table.mean(axis=1), markevery=every, **style.drawn)
        if len(complete) > 1:
            low, high = table.min(axis=1), table.max(axis=1)
            ax.fill_between(table.index, low, high, color=style.color, alpha=0.15, linewidth=0)
    for entry in cell.having("diverged"):
        if entry in curves:
            curve = curves[entry].clip(lower=floor)
            ax.plot(curve.samples, curve.error, color=style.color, linestyle=style.line, linewidth=0.8)
            ax.plot(curve.samples.iloc[-1:], curve.error.iloc[-1:], color=style.color, marker="x", markersize=7)


def _percent_axis(ax: Axes) -> None:
    """A logarithmic axis whose ticks read 1, 2, 5, 10: the panels share it."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
