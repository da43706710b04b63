"""Validation error against the learning rate, and at which ones a scheme keeps up with the best."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from normbench.analysis.groups import Group, Groups, label, show
from normbench.plots.drawing import Figure, finish, grid, legend, omitted, panels, plural
from normbench.plots.errors import (
    FAILURES,
    draw_line,
    error_axis,
    errors,
    failure_marks,
    failure_words,
    limits,
    lines_of,
    sideways,
    values_of,
)
from normbench.plots.palette import Style, palette

NAME, TITLE = "lr_sensitivity", "Sensitivity to the learning rate"
PANELS, WITHIN = 8, 1.0


def draw(groups: Groups) -> list[Figure]:
    """For each setting a panel of errors, and below it a strip with a row per scheme."""
    lines = lines_of(groups, "lr")
    if not lines:
        missing = (
            "Not drawn: all runs of a setting have the same learning rate. Sweep it: normbench run -m lr=0.01,0.1,1"
        )
        return [Figure(NAME, TITLE, missing)]
    shown = list(lines)[:PANELS]
    rows, columns = grid(len(shown))
    wide, tall = (7.0 if columns == 1 else max(2.7, 11 / columns)), 0.35 + 0.13 * len(groups.schemes)
    ratios = {"height_ratios": [2.6, tall] * rows, "sharex": "col", "sharey": "row"}
    canvas, axes = panels(2 * rows, columns, wide, (2.6 + tall) / 2, **ratios)
    styles = palette(groups.schemes)
    found = [
        error
        for r in shown
        for line in lines[r].values()
        for group in line.values()
        for error in errors(group, "validation")
    ]
    bounds, failures = limits(found), set[str]()
    for i, rest in enumerate(shown):
        above, below = axes[2 * (i // columns)][i % columns], axes[2 * (i // columns) + 1][i % columns]
        for place, (scheme, line) in enumerate(lines[rest].items()):
            dodge = sideways(place, len(lines[rest]))
            failures |= draw_line(above, line, styles[scheme], dodge, bounds, "validation")
        above.set_title(label(rest, ""))
        error_axis(above, bounds)
        _draw_strip(below, lines[rest], list(groups.schemes), styles)
    for i in range(len(shown), rows * columns):
        axes[2 * (i // columns)][i % columns].set_visible(False)
        axes[2 * (i // columns) + 1][i % columns].set_visible(False)
    canvas.supxlabel("learning rate", fontsize=9)
    canvas.supylabel("validation error (%)", fontsize=9)
    inside = Line2D([], [], color="#555555", marker="o", linewidth=4, label=f"within {WITHIN:g} point of the best")
    legend(canvas, {name: styles[name] for name in styles}, [inside, *failure_marks(failures)])
    parts = [
        f"Error on the validation set (percent, logarithmic) at the end of training, from {plural(len(found), 'run')}.",
        "Small dots: seeds. Lines join their means; bars are the 95% Student t interval of the mean. Schemes are moved",
        "apart sideways. Below, a row per scheme: filled marks at learning rates whose mean is within",
        f"{WITHIN:g} point of the best mean of all schemes and learning rates of that panel, all of their runs having",
        "finished; joined where neighbours on the grid are: the wider, the less the learning rate has to be tuned.",
        "Open marks: the others.",
        failure_words(failures),
        omitted(PANELS, lines, "settings"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def stable(by_scheme: Mapping[str, Mapping[float, Group]], within: float = WITHIN) -> dict[str, list[float]]:
    """Scheme -> the learning rates whose mean validation error is at most `within` points above the best of all."""
    means = {
        (scheme, lr): sum(found) / len(found)
        for scheme, line in by_scheme.items()
        for lr, group in line.items()
        if (found := errors(group, "validation")) and len(found) == len(group.members)
    }
    best = min(means.values(), default=0.0)
    return {s: [lr for lr in sorted(line) if means.get((s, lr), 1e9) <= best + within] for s, line in by_scheme.items()}


def _draw_strip(
    ax: Axes, by_scheme: Mapping[str, Mapping[float, Group]], schemes: list[str], styles: dict[str, Style]
) -> None:
    lrs, inside = values_of(by_scheme), stable(by_scheme)
    for scheme, line in by_scheme.items():
        style, y = styles[scheme], schemes.index(scheme)
        for lr, group in line.items():
            face = style.color if lr in inside[scheme] else "white"
            marker = next((mark for why, mark in FAILURES.items() if group.having(why)), style.marker)
            ax.plot([lr], [y], marker=marker, color=style.color, markerfacecolor=face, markersize=6)
        for low, high in pairwise(lrs):
            if low in inside[scheme] and high in inside[scheme]:
                ax.plot([low, high], [y, y], color=style.color, linewidth=4, solid_capstyle="butt", alpha=0.5)
    ax.set_ylim(len(schemes) - 0.4, -0.6)
    ax.set_yticks(range(len(schemes)), schemes, fontsize=7)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(lrs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(float(value))))
    ax.xaxis.set_minor_locator(NullLocator())
