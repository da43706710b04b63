"""Test error against batch size: the figure of Wu & He 2018 (arXiv 1803.08494, fig. 1), with every seed drawn."""

from __future__ import annotations

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from normbench.analysis.groups import Groups, label
from normbench.plots.drawing import Figure, finish, grid, legend, omitted, panels, plural
from normbench.plots.errors import (
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
from normbench.plots.palette import palette

NAME, TITLE = "batch_sizes", "Test error against batch size"
PANELS = 20


def draw(groups: Groups) -> list[Figure]:
    lines = lines_of(groups, "batch_size")
    if not lines:
        return [Figure(NAME, TITLE, "Not drawn: all runs of a setting have the same batch size.")]
    shown = list(lines)[:PANELS]
    rows, columns = grid(len(shown))
    wide = 7.0 if columns == 1 else max(2.7, 11 / columns)
    canvas, axes = panels(rows, columns, wide, 3.8 if rows == 1 else 2.9, sharey=True)
    flat = [ax for row in axes for ax in row]
    styles = palette(groups.schemes)
    found = [
        error for rest in shown for line in lines[rest].values() for group in line.values() for error in errors(group)
    ]
    bounds = limits(found)
    failures: set[str] = set()
    for ax, rest in zip(flat, shown, strict=False):
        for i, (scheme, line) in enumerate(lines[rest].items()):
            dodge = sideways(i, len(lines[rest]))
            failures |= draw_line(ax, line, styles[scheme], dodge, bounds)
        ax.set_title(label(rest, ""))
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(values_of(lines[rest])))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    error_axis(flat[0], bounds)
    canvas.supxlabel("batch size", fontsize=9)
    canvas.supylabel("test error (%)", fontsize=9)
    drawn = {name: styles[name] for name in styles if any(name in lines[rest] for rest in shown)}
    legend(canvas, drawn, failure_marks(failures))
    parts = [
        f"Error on the test set (percent, logarithmic) at the end of training, from {plural(len(found), 'run')};",
        "lower is better. Small dots: seeds. Lines join their means; bars are the 95% Student t interval of the mean",
        "(none where there is one seed; cut where they leave the axes). Schemes are moved apart sideways.",
        failure_words(failures),
        omitted(PANELS, lines, "settings"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, groups.synthetic)]
