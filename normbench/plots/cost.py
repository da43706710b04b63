"""What each scheme costs: time per update, memory for the backward pass, error for the seconds spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from normbench.analysis.groups import Group, Groups, Setting, label
from normbench.analysis.measured import rows, without
from normbench.analysis.statistics import estimate
from normbench.plots.drawing import Figure, finish, legend, omitted, panels, plain_ticks, say
from normbench.plots.errors import errors
from normbench.plots.palette import Style, palette
from normbench.runs import Run

NAME, TITLE = "cost", "Cost: time per update, memory, error for the time spent"
ROWS = 3
Sizes = dict[int, list[Group]]  # batch size -> the groups of one scheme, which differ in lr alone


def draw(groups: Groups) -> list[Figure]:
    """A row per setting (without lr and batch size)."""
    found: dict[Setting, dict[str, Sizes]] = {}
    for setting, by_scheme in groups.settings.items():
        for scheme, group in by_scheme.items():
            if any(map(milliseconds, group.members)):
                size = int(group.members[0].values.get("batch_size") or 0)
                by_size = found.setdefault(without(setting, "lr", "batch_size"), {}).setdefault(scheme, {})
                by_size.setdefault(size, []).append(group)
    if not found:
        return [Figure(NAME, TITLE, "Not drawn: no run is complete, or none says how long it trained.")]
    shown = list(found)[:ROWS]
    canvas, axes = panels(len(shown), 3, 3.7, 3.0)
    styles, memory, runs = palette(groups.schemes), False, 0
    for row, rest in zip(axes, shown, strict=True):
        for place, (scheme, sizes) in enumerate(found[rest].items()):
            dodge = 2 ** (0.08 * (place - (len(found[rest]) - 1) / 2))
            times = {size: [ms for c in by for e in c.members if (ms := milliseconds(e))] for size, by in sizes.items()}
            runs += sum(map(len, times.values()))
            kept = {size: [kb] for size, candidates in sizes.items() if (kb := kilobytes(candidates))}
            memory |= bool(kept)
            _draw_against_size(row[0], times, styles[scheme], dodge)
            _draw_against_size(row[1], kept, styles[scheme], dodge)
            _draw_tradeoff(row[2], sizes, styles[scheme])
        _label(row, label(rest, ""), sorted({size for sizes in found[rest].values() for size in sizes}))
    legend(canvas, {s: styles[s] for s in groups.schemes if any(s in found[rest] for rest in shown)})
    parts = [
        f"From {runs} complete runs. Left: training time per update, without evaluating and measuring; dots: runs",
        "(seeds, and learning rates, which make no difference to it), line: their medians. Times are of this",
        "machine, with whatever else it was doing.",
        "Middle: memory kept for the backward pass of one batch, without parameters and buffers."
        if memory
        else "Middle: not measured (the instrument memory_time supplies it).",
        "Right: test error at the end (percent, logarithmic) against seconds of training, each scheme at the learning",
        "rate with its best validation accuracy: dots are seeds, marks their means, lines join batch sizes (written",
        "beside them). Down and to the left is better.",
        omitted(ROWS, found, "settings"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def milliseconds(run: Run) -> float:
    """Training time per update of a complete run; 0 where it is not known."""
    seconds, steps = (run.summary.get("seconds") or {}).get("training"), run.summary.get("steps")
    return 1000 * seconds / steps if run.status == "complete" and seconds and steps else 0.0


def kilobytes(candidates: Sequence[Group]) -> float:
    """Kept for the backward pass of a batch: the same in all runs of a scheme and batch size, so one is read."""
    for group in candidates:
        for run in group.having("complete"):
            saved = rows(run, "memory_time", "saved").saved.dropna()
            if len(saved):
                return float(saved.iloc[-1]) / 1000
    return 0.0


def best_group(candidates: Sequence[Group]) -> Group:
    """The one with the best mean validation accuracy; at equality the first."""
    return min(candidates, key=lambda group: float(np.mean(errors(group, "validation") or [np.inf])))


def _draw_against_size(ax: Axes, values: Mapping[int, Sequence[float]], style: Style, dodge: float) -> None:
    known = {size: found for size, found in sorted(values.items()) if found}
    for size, found in known.items():
        if len(found) > 1:
            ax.plot([size * dodge] * len(found), found, ".", color=style.color, markersize=3.5, alpha=0.5)
    ax.plot([size * dodge for size in known], [float(np.median(found)) for found in known.values()], **style.drawn)


def _draw_tradeoff(ax: Axes, sizes: Sizes, style: Style) -> None:
    means = []
    for size, candidates in sorted(sizes.items()):
        group = best_group(candidates)
        runs = [e for e in group.having("complete") if milliseconds(e) and e.summary.get("test_accuracy") is not None]
        seconds = [e.summary["seconds"]["training"] for e in runs]
        missed = [max(100 * (1 - e.summary["test_accuracy"]), 0.01) for e in runs]
        if error := estimate(missed):
            ax.plot(seconds, missed, ".", color=style.color, markersize=3.5, alpha=0.6)
            means.append((float(np.mean(seconds)), error.mean))
            if len(sizes) > 1:
                ax.annotate(str(size), means[-1], (4, 3), textcoords="offset points", fontsize=6.5, color=style.color)
    ax.plot([x for x, _ in means], [y for _, y in means], **style.drawn)


def _label(row: Sequence[Axes], title: str, sizes: list[int]) -> None:
    for ax, words in zip(row[:2], ("ms per update", "kB for the backward pass"), strict=True):
        ax.set_xscale("log", base=2)
        if len(sizes) == 1:
            ax.set_xlim(sizes[0] / 2, sizes[0] * 2)
        ax.xaxis.set_major_locator(FixedLocator(sizes))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("batch size")
        ax.set_ylabel(words)
        if np.isfinite(ax.dataLim.y1):
            ax.set_ylim(0, 1.1 * ax.dataLim.y1)
        else:
            say(ax, "memory: not measured\n(the instrument memory_time)")
    row[0].set_title(title, loc="left")
    row[2].set_xlabel("seconds of training")
    row[2].set_ylabel("test error (%)")
    row[2].set_xscale("log")
    row[2].set_yscale("log")
    row[2].margins(0.12)
    for axis in (row[2].xaxis, row[2].yaxis):
        plain_ticks(axis)
