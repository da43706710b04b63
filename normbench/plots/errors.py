"""Lines of error against something that was varied: every seed, means with intervals, and where there is no result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.groups import Cell, Cells, Setting
from normbench.analysis.measured import without
from normbench.analysis.statistics import estimate
from normbench.plots.drawing import plain_ticks, threads
from normbench.plots.palette import Style

Lines = dict[Setting, dict[str, dict[float, Cell]]]  # the other settings -> scheme -> value -> cell
GONE = {"diverged": "x", "unsupported": "|"}  # marks on the upper edge


def lines_of(cells: Cells, name: str) -> Lines:
    """The cells by the value of one setting, where it has two values or more."""
    lines: Lines = {}
    for setting, by_scheme in cells.settings.items():
        for scheme, cell in by_scheme.items():
            value = cell.entries[0].settings.get(name)
            if isinstance(value, int | float) and value > 0:
                lines.setdefault(without(setting, name), {}).setdefault(scheme, {})[value] = cell
    return {rest: line for rest, line in lines.items() if len(values_of(line)) > 1}


def values_of(by_scheme: Mapping[str, Mapping[float, Cell]]) -> list[float]:
    return sorted({value for line in by_scheme.values() for value in line})


def errors(cell: Cell, which: str = "test") -> list[float]:
    """Error of each complete run, in percent; `which` of the sets, "test" or "validation"."""
    values = [entry.summary.get(f"{which}_accuracy") for entry in cell.having("complete")]
    return [100 * (1 - value) for value in values if value is not None]


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Of a logarithmic axis for errors in percent."""
    return max(min(values, default=1.0), 0.01) / 1.25, (max(*values, 0.1) if values else 100.0) * 1.25


def error_axis(ax: Axes, bounds: tuple[float, float]) -> None:
    """Logarithmic, with ticks that read 1, 2, 5, 10."""
    ax.set_yscale("log")
    ax.set_ylim(*bounds)
    plain_ticks(ax.yaxis)


def draw_line(
    ax: Axes,
    line: Mapping[float, Cell],
    style: Style,
    dodge: float,
    bounds: tuple[float, float],
    which: str = "test",
) -> set[str]:
    """Draw one scheme; says which marks it used for runs without a result."""
    known = {value * dodge: [max(e, bounds[0]) for e in errors(cell, which)] for value, cell in sorted(line.items())}
    known = {at: seeds for at, seeds in known.items() if seeds}
    dots = [(at, seed) for at, seeds in known.items() for seed in seeds]
    ax.plot([x for x, _ in dots], [y for _, y in dots], ".", color=style.color, markersize=3.5, alpha=0.6)
    found = {at: value for at, seeds in known.items() if (value := estimate(seeds))}
    bars = [((at, at), (max(v.low, bounds[0] / 2), v.high)) for at, v in found.items() if v.low is not None]
    threads(ax, bars, style.color, width=0.9, alpha=0.8)
    ax.plot(list(found), [value.mean for value in found.values()], **style.drawn)
    gone = {v * dodge: next((s for s in GONE if cell.having(s)), "") for v, cell in line.items()}
    for at, why in gone.items():
        if why:
            edge = ax.get_xaxis_transform()
            ax.plot([at], [0.97], GONE[why], color=style.color, transform=edge, markersize=7, clip_on=False)
    return {why for why in gone.values() if why}


def gone_marks(gone: set[str]) -> list[Line2D]:
    """For the legend."""
    return [
        Line2D([], [], color="#555555", marker=GONE[why], linestyle="", markersize=7, label=why) for why in sorted(gone)
    ]


def gone_words(gone: set[str]) -> str:
    marks = "Marks on the upper edge: a run there has no result, because it diverged or the cell is unsupported;"
    return f"{marks} means are over the others." if gone else ""


def sideways(place: int, count: int) -> float:
    """A factor that moves the schemes apart on a logarithmic axis, so that dots don't hide dots."""
    return 2 ** (0.06 * (place - (count - 1) / 2))
