"""Tidy frames to panels: `facets` makes a panel for each row and column that has data; `lines` and `points` fill one.

A tidy frame has a row per number: `row`, `column` (the panel, in the order of their first rows), `scheme`, `run`, `x`,
`y`. Further columns that a drawing function reads are named with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.groups import order, show
from normbench.analysis.statistics import estimate
from normbench.plots.drawing import Canvas, legend, panels, plain_ticks, segments, ticks
from normbench.plots.palette import OTHERS, Style

if TYPE_CHECKING:
    import pandas as pd

LABELS, DODGE = 8, 0.06  # names below one panel; how far schemes move aside, of the gap between two places
FAILURES = {"diverged": "x", "unsupported": "|"}  # marks on the upper edge
Draw = Callable[[Axes, "pd.DataFrame", Style, float], None]


def facets(
    data: pd.DataFrame,
    draw: Draw,
    styles: Mapping[str, Style],
    size: tuple[float, float] = (2.9, 2.2),
    rows: Iterable[str] = (),
    columns: Iterable[str] = (),
    log: Sequence[str] = (),
    extra: Sequence[Line2D] = (),
    at: Mapping[Any, float] | None = None,
    **shared: Any,
) -> tuple[Canvas, dict[tuple[str, str], Axes]]:
    """A panel for each row and column, with `draw(ax, part, style, aside)` for each scheme in it, and a legend.

    Args:
        styles: of all schemes of the study, so that each has the same look in all of its figures.
        size: of a panel, in inches.
        rows, columns: their order; left out, that of the data.
        log: the rows with a logarithmic vertical axis.
        extra: entries of the legend besides the schemes.
        at: what stands where on the horizontal axes, if names stand there, see `name_places`.
        shared: `sharex`, `sharey` of `Figure.subplots`; a row shares its vertical axis, a column its horizontal one.

    Returns:
        The canvas, and the axes that have data: (row, column) -> Axes.
    """
    rows = [row for row in rows or dict.fromkeys(data["row"]) if row in set(data["row"])]
    columns = [column for column in columns or dict.fromkeys(data["column"]) if column in set(data["column"])]
    wide = max(size[0], min(6.5, 11 / len(columns)))
    canvas, axes = panels(len(rows), len(columns), wide, size[1], **{"sharex": "col", "sharey": "row", **shared})
    drawn: dict[tuple[str, str], Axes] = {}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            part, ax = data[(data["row"] == row) & (data["column"] == column)], axes[i][j]
            if part["y"].notna().any() or ("status" in part and part["status"].isin(FAILURES).any()):
                drawn[row, column] = ax
                here = order(part["scheme"])
                for scheme in sorted(here, key=lambda scheme: styles[scheme].color != OTHERS):  # grey below the others
                    aside = DODGE * (2 * here.index(scheme) / (len(here) - 1) - 1) if len(here) > 1 else 0.0
                    draw(ax, part[part["scheme"] == scheme], styles[scheme], aside)
            else:
                ax.set_visible(False)
        if row in log:
            for ax in (ax for (of, _), ax in drawn.items() if of == row):
                ax.set_yscale("log")
    for (row, column), ax in drawn.items():  # names of the axes at the edge, also where the edge itself is empty
        if row == next(r for r in rows if (r, column) in drawn):
            ax.set_title(column)
        if column == next(c for c in columns if (row, c) in drawn):
            ax.set_ylabel(row)
            ax.tick_params(labelleft=True)
        if row == next(r for r in rows[::-1] if (r, column) in drawn):
            ax.tick_params(labelbottom=True)
        if row in log:
            plain_ticks(ax.yaxis)
        if at is not None:
            name_places(ax, at)
    legend(canvas, {scheme: styles[scheme] for scheme in order(data["scheme"])}, extra)
    return canvas, drawn


def lines(ax: Axes, part: pd.DataFrame, style: Style, aside: float = 0.0) -> None:
    """A quantity over training: a thin line for each run, and their mean at the places that all have.

    `at` tells the places where x is not the same for all runs, such as seconds; `low` and `high` bound a band; `status`
    diverged: a line that ends in a cross and is no part of the mean.
    """
    ended = part["status"] == "diverged" if "status" in part else np.zeros(len(part), dtype=bool)
    for _, run in part[ended].groupby("run", sort=False):
        segments(ax, [(run["x"], run["y"])], style.color, width=0.8, alpha=1)
        ax.plot(run["x"].iloc[-1:], run["y"].iloc[-1:], "x", color=style.color, markersize=7)
    part = part[~ended].assign(at=lambda table: table["at"] if "at" in table else table["x"])
    runs = [run for _, run in part.groupby("run", sort=False)]
    for run in runs if "low" in part else []:
        ax.fill_between(run["x"], run["low"], run["high"], color=style.color, alpha=0.5 / len(runs), linewidth=0)
    if len(runs) > 1 and style.color != OTHERS:
        segments(ax, [(run["x"], run["y"]) for run in runs], style.color)
    if runs:
        mean = mean_over_seeds(part)
        ax.plot(mean["x"], mean["y"], markevery=max(1, len(mean) // 5), **style.drawn)


def mean_over_seeds(part: pd.DataFrame) -> pd.DataFrame:
    """x and y by `at`, where all runs have them: a mean over some of them would jump where one ends."""
    wide = part.pivot_table(index="at", columns="run", values=["x", "y"], dropna=False).dropna()
    return wide.T.groupby(level=0).mean().T.reindex(columns=["x", "y"])


def points(
    ax: Axes,
    part: pd.DataFrame,
    style: Style,
    aside: float = 0.0,
    join: bool = True,
    possible: tuple[float, float] | None = None,
    center: str = "mean",
) -> None:
    """Numbers at places 0, 1, 2 ...: a dot for each run, marks at their means, a line from mean to mean.

    `status`: runs without a number have a mark on the upper edge. `hollow`: marks that are not filled.

    Args:
        join: the places are numbers or layers. Lines never join categories.
        possible: the least and greatest value; with it, the 95% Student t interval is drawn from three runs on.
        center: of the dots of a place, where the mark is.
    """
    dots, near = part[part["y"].notna()], aside * gap(part["x"])
    by_place = dots.groupby("x")["y"]
    means = by_place.agg(center)
    if (by_place.size() > 1).any():
        ax.plot(dots["x"] + near, dots["y"], ".", color=style.color, markersize=3.5, alpha=0.6)
    if possible:
        bars: list[tuple[Any, Any]] = []
        for x, found in ((x, estimate(y.tolist())) for x, y in by_place if len(y) > 2):
            if found and found.low is not None and found.high is not None:
                bars.append(((x + near, x + near), np.clip((found.low, found.high), *possible)))
        segments(ax, bars, style.color, width=0.9, alpha=0.8)
    ax.plot(means.index + near, means, **style.drawn | ({} if join else {"linestyle": ""}))
    if "hollow" in part and len(open_marks := [x for x in means.index if dots.loc[dots["x"] == x, "hollow"].all()]):
        ax.plot([x + near for x in open_marks], means[open_marks], style.marker, color=style.color, mfc="white")
    for status in FAILURES if "status" in part else ():
        for x in part.loc[part["status"] == status, "x"].unique():
            look: Any = {"color": style.color, "markersize": 7, "clip_on": False, "transform": ax.get_xaxis_transform()}
            ax.plot([x + near], [0.97], FAILURES[status], **look)


def gap(places: Iterable[float]) -> float:
    """The smallest distance between two places; 1 where there is one place."""
    known = np.unique(np.asarray(list(places), dtype=float))
    return float(np.diff(known).min()) if len(known) > 1 else 1.0


def places(values: Iterable[Any]) -> tuple[dict[Any, float], bool]:
    """Where each value stands: positive numbers by their logarithm, others evenly; and whether lines may join them."""
    numbers = {value: value for value in values}
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
    ordered = sorted(numbers, key=(lambda v: (float(v), "")) if numeric else (lambda v: (0.0, str(v))))
    if numeric and ordered and ordered[0] > 0:
        return {value: float(np.log2(value)) for value in ordered}, True
    return {value: float(i) for i, value in enumerate(ordered)}, numeric


def name_places(ax: Axes, known: Mapping[Any, float], most: int = LABELS) -> None:
    """Names below the places, slanted where they are long; of more than `most` only some."""
    every = max(1, -(-len(known) // most))
    named = {show(value): place for value, place in list(known.items())[::every]}
    room = 0.5 * gap(known.values())
    ax.set_xlim(min(known.values()) - room, max(known.values()) + room)
    ax.set_xticks(list(named.values()), list(named))
    ax.minorticks_off()
    figure = ax.get_figure()
    inches = ax.get_position().width * (figure.get_figwidth() if figure else 0.0)  # type: ignore[union-attr]
    if 0.08 * sum(len(name) + 1 for name in named) > inches:
        for name in ax.get_xticklabels():
            name.set(rotation=35, ha="right", rotation_mode="anchor")


def step_axis(ax: Axes, last: float) -> None:
    """0, 1, 10, 100 ...: step 0 has a place, and the first steps are as wide as the last."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xlim(0, max(last, 1))
    ticks(ax.xaxis, [0, *(10.0**k for k in range(len(str(int(last)))))])


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of them, evenly spaced, first and last included."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def layers_of(table: pd.DataFrame) -> list[str]:
    """All names of layers, in the order of the network that has the most."""
    lists = [list(dict.fromkeys(names)) for _, names in table[table["layer"].notna()].groupby("run")["layer"]]
    return list(dict.fromkeys(name for names in sorted(lists, key=len, reverse=True) for name in names))


def entering(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of what enters each layer's activation: `normalized`, or `linear` where a run's layer has no norm."""
    keys = table["run"].astype(str) + "\n" + table["layer"].astype(str)
    normed = set(keys[table["tensor"] == "normalized"])
    return table[(table["tensor"] == "normalized") | ((table["tensor"] == "linear") & ~keys.isin(normed))]


def hidden(layers: Sequence[str]) -> str:
    """The last hidden one of these layers: no norm is in the output."""
    return next((layer for layer in layers[::-1] if layer != "output"), layers[-1])
