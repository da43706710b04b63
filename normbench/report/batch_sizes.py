"""Test error against batch size: the figure of Wu & He 2018 (arXiv 1803.08494, fig. 1), with every seed drawn."""

from __future__ import annotations

from collections import defaultdict

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from normbench.report.cells import Cell, Cells, Setting, label
from normbench.report.drawing import Figure, finish, grid, legend, log_ticks, omitted, panels, plural
from normbench.report.palette import Style, palette
from normbench.report.statistics import estimate

NAME, TITLE = "batch_sizes", "Test error against batch size"
PANELS = 20


def draw(cells: Cells) -> list[Figure]:
    lines: dict[Setting, dict[str, dict[int, Cell]]] = defaultdict(lambda: defaultdict(dict))
    for setting, by_scheme in cells.settings.items():
        for scheme, cell in by_scheme.items():
            rest = tuple(item for item in setting if item[0] != "batch_size")
            lines[rest][scheme][int(cell.entries[0].settings.get("batch_size") or 0)] = cell
    sizes = {rest: sorted({size for line in lines[rest].values() for size in line if size > 0}) for rest in lines}
    several = [rest for rest in lines if len(sizes[rest]) > 1]
    if not several:
        return [Figure(NAME, TITLE, "Not drawn: all runs of a setting have the same batch size.")]
    shown = several[:PANELS]
    rows, columns = grid(len(shown))
    wide = 7.0 if columns == 1 else max(2.7, 11 / columns)
    canvas, axes = panels(rows, columns, wide, 3.8 if rows == 1 else 2.9, sharey=True)
    flat = [ax for row in axes for ax in row]
    styles = palette(cells.schemes)
    errors = [e for rest in shown for line in lines[rest].values() for c in line.values() for e in _errors(c)]
    lowest, highest = max(min(errors, default=1.0), 0.01), max(*errors, 0.1) if errors else 100.0
    limits = (lowest / 1.25, highest * 1.25)
    gone: set[str] = set()
    for ax, rest in zip(flat, shown, strict=False):
        for place, (scheme, line) in enumerate(lines[rest].items()):
            dodge = 2 ** (0.06 * (place - (len(lines[rest]) - 1) / 2))  # side by side, so that dots don't hide dots
            gone |= _draw_line(ax, line, styles[scheme], dodge, limits)
        ax.set_title(label(rest, ""))
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(sizes[rest]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    flat[0].set_yscale("log")
    flat[0].set_ylim(*limits)
    flat[0].yaxis.set_major_locator(FixedLocator(log_ticks(*limits)))
    flat[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    flat[0].yaxis.set_minor_formatter(NullFormatter())
    canvas.supxlabel("batch size", fontsize=9)
    canvas.supylabel("test error (%)", fontsize=9)
    extra = [
        Line2D([], [], color="#555555", marker=_GONE[why], linestyle="", markersize=7, label=why)
        for why in sorted(gone)
    ]
    legend(canvas, {name: styles[name] for name in styles if any(name in lines[rest] for rest in shown)}, extra)
    parts = [
        f"Error on the test set (percent, logarithmic) at the end of training, from {plural(len(errors), 'run')};",
        "lower is better. Small dots: seeds. Lines join their means; bars are the 95% Student t interval of the mean",
        "(none where there is one seed; cut where they leave the axes). Schemes are moved apart sideways.",
        "Marks on the upper edge: no run there has a result: all diverged, or the cell is unsupported." if gone else "",
        omitted(PANELS, several, "settings"),
    ]
    caption = " ".join(filter(None, parts))
    return [finish(NAME, TITLE, caption, canvas, cells.synthetic)]


_GONE = {"diverged": "x", "unsupported": "|"}


def _errors(cell: Cell) -> list[float]:
    """Test error of each complete run, in percent."""
    values = [entry.summary.get("test_accuracy") for entry in cell.having("complete")]
    return [100 * (1 - value) for value in values if value is not None]


def _draw_line(ax: Axes, line: dict[int, Cell], style: Style, dodge: float, limits: tuple[float, float]) -> set[str]:
    """Draw one scheme; says which marks for cells without a result it used."""
    x, means, gone = [], [], set()
    for size, cell in sorted(line.items()):
        errors = [max(value, limits[0]) for value in _errors(cell)]
        if value := estimate(errors):
            x.append(size * dodge)
            means.append(value.mean)
            ax.plot([size * dodge] * len(errors), errors, ".", color=style.color, markersize=3.5, alpha=0.6)
            if value.low is not None and value.high is not None:
                span = [max(value.low, limits[0] / 2), value.high]
                ax.plot([size * dodge] * 2, span, color=style.color, linewidth=0.9, alpha=0.8)
        elif why := next((status for status in _GONE if cell.having(status)), ""):
            gone.add(why)
            edge = ax.get_xaxis_transform()
            ax.plot([size * dodge], [0.97], _GONE[why], color=style.color, transform=edge, markersize=8, clip_on=False)
    ax.plot(x, means, **style.drawn)
    return gone
