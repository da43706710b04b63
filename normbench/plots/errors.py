"""Lines of error against something that was varied: every seed, means with intervals, and where there is no result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.groups import Group, Groups, Setting
from normbench.analysis.measured import without
from normbench.analysis.statistics import estimate
from normbench.plots.drawing import plain_ticks, threads
from normbench.plots.palette import Style

Lines = dict[Setting, dict[str, dict[float, Group]]]  # the other settings -> scheme -> value -> group
FAILURES = {"diverged": "x", "unsupported": "|"}  # marks on the upper edge


def lines_of(groups: Groups, name: str) -> Lines:
    """The groups by the value of one setting, where it has two values or more."""
    lines: Lines = {}
    for setting, by_scheme in groups.settings.items():
        for scheme, group in by_scheme.items():
            value = group.members[0].values.get(name)
            if isinstance(value, int | float) and value > 0:
                lines.setdefault(without(setting, name), {}).setdefault(scheme, {})[value] = group
    return {rest: line for rest, line in lines.items() if len(values_of(line)) > 1}


def values_of(by_scheme: Mapping[str, Mapping[float, Group]]) -> list[float]:
    return sorted({value for line in by_scheme.values() for value in line})


def errors(group: Group, which: str = "test") -> list[float]:
    """Error of each complete run, in percent; `which` of the sets, "test" or "validation"."""
    values = [run.summary.get(f"{which}_accuracy") for run in group.having("complete")]
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
    line: Mapping[float, Group],
    style: Style,
    dodge: float,
    bounds: tuple[float, float],
    which: str = "test",
) -> set[str]:
    """Draw one scheme; says which marks it used for runs without a result."""
    known = {value * dodge: [max(e, bounds[0]) for e in errors(group, which)] for value, group in sorted(line.items())}
    known = {at: seeds for at, seeds in known.items() if seeds}
    dots = [(at, seed) for at, seeds in known.items() for seed in seeds]
    ax.plot([x for x, _ in dots], [y for _, y in dots], ".", color=style.color, markersize=3.5, alpha=0.6)
    found = {at: value for at, seeds in known.items() if (value := estimate(seeds))}
    bars = [((at, at), (max(v.low, bounds[0] / 2), v.high)) for at, v in found.items() if v.low is not None]
    threads(ax, bars, style.color, width=0.9, alpha=0.8)
    ax.plot(list(found), [value.mean for value in found.values()], **style.drawn)
    failures = {v * dodge: next((s for s in FAILURES if group.having(s)), "") for v, group in line.items()}
    for at, why in failures.items():
        if why:
            edge = ax.get_xaxis_transform()
            ax.plot([at], [0.97], FAILURES[why], color=style.color, transform=edge, markersize=7, clip_on=False)
    return {why for why in failures.values() if why}


def failure_marks(failures: set[str]) -> list[Line2D]:
    """For the legend."""
    return [
        Line2D([], [], color="#555555", marker=FAILURES[why], linestyle="", markersize=7, label=why)
        for why in sorted(failures)
    ]


def failure_words(failures: set[str]) -> str:
    marks = "Marks on the upper edge: a run there has no result, because it diverged or is unsupported;"
    return f"{marks} means are over the others." if failures else ""


def sideways(place: int, count: int) -> float:
    """A factor that moves the schemes apart on a logarithmic axis, so that dots don't hide dots."""
    return 2 ** (0.06 * (place - (count - 1) / 2))
