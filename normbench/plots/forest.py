"""Each scheme against a reference, paired by seed: a forest plot."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from normbench.analysis.groups import Group, Groups, label
from normbench.analysis.measured import best_settings
from normbench.analysis.statistics import estimate
from normbench.plots.drawing import Figure, finish, grid, omitted, panels, plural
from normbench.plots.palette import Style, palette

NAME, TITLE = "forest", "Paired differences in test accuracy"
PANELS = 12
LINEAR = 2.0  # points: beyond, the axis is logarithmic, so that a scheme that fails does not hide all others


def draw(groups: Groups, reference: str = "none", margin: float = 0.5) -> list[Figure]:
    """A panel per setting, a row per scheme.

    Args:
        reference: the scheme to compare with; where it was not run, the first of the study.
        margin: differences up to so many points count as none.
    """
    against = reference if reference in groups.schemes else groups.schemes[0]
    found = {setting: _differences(by_scheme, against) for setting, by_scheme in groups.settings.items()}
    found = {setting: by_scheme for setting, by_scheme in found.items() if any(by_scheme.values())}
    if not found:
        missing = (
            f"Not drawn: no scheme has a complete run with the setting and seed of one of {against}, the reference."
        )
        return [Figure(NAME, TITLE, missing)]
    shown = best_settings(groups, found, PANELS)
    schemes = [s for s in groups.schemes if s != against and any(found[setting].get(s) for setting in shown)]
    rows, columns = grid(len(shown))
    wide, tall = (7.0 if columns == 1 else max(2.6, 11 / columns)), 0.8 + 0.26 * len(schemes)
    canvas, axes = panels(rows, columns, wide, tall, sharex=True, sharey=True)
    flat, styles = [ax for row in axes for ax in row], palette(groups.schemes)
    for ax, setting in zip(flat, shown, strict=False):
        ax.axvspan(-margin, margin, color="#DDDDDD", linewidth=0)
        ax.axvline(0, color="#555555", linewidth=0.8)
        for y, scheme in enumerate(schemes):
            _draw_row(ax, y, found[setting].get(scheme, []), groups.settings[setting].get(scheme), styles[scheme])
        ax.set_title(label(setting, ""))
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    flat[0].set_ylim(len(schemes) - 0.5, -0.5)
    flat[0].set_yticks(range(len(schemes)), schemes)
    far = max(abs(value) for s in shown for values in found[s].values() for value in values)
    _points_axis(flat[0], max(1.3 * far, 2 * margin))
    canvas.supxlabel(f"test accuracy minus that of {against}, percentage points", fontsize=9)
    dots = Line2D([], [], color="#555555", marker=".", linestyle="", label="a seed")
    bar = Line2D([], [], color="#555555", marker="s", label="mean, 95% interval")
    canvas.legend(handles=[dots, bar], loc="outside upper center", ncols=2)
    pairs = sum(len(values) for s in shown for values in found[s].values())
    lost = len(groups.settings) - len(found)
    log = f" The axis is linear up to {LINEAR:g} points, logarithmic beyond." if far > 3 * LINEAR else ""
    parts = [
        f"Test accuracy at the end of training minus that of {against} with the same seed and setting, from {pairs}",
        "pairs of complete runs: equal starting weights and equal batches. To the right is better. Bars: 95% Student",
        "t interval of the mean difference over seeds (new seeds on this test set, not new images; cut at the edge),",
        f"not corrected for the number of comparisons. Shaded: the margin of ±{margin:g} points. At the right: of how",
        f"many seeds both have finished, or why none has.{log}",
        f"Left out: {plural(lost, 'setting')} without such a pair." if lost else "",
        omitted(PANELS, found, "settings"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def paired(group: Group, reference: Group) -> list[float]:
    """Differences in test accuracy, in points, of the seeds that have finished in both; in order of seed."""
    other = {run.seed: run.summary.get("test_accuracy") for run in reference.having("complete")}
    pairs = [(e.summary.get("test_accuracy"), other.get(e.seed)) for e in group.having("complete")]
    return [100 * (own - theirs) for own, theirs in pairs if own is not None and theirs is not None]


def _differences(by_scheme: dict[str, Group], against: str) -> dict[str, list[float]]:
    if against not in by_scheme:
        return {}
    return {s: paired(group, by_scheme[against]) for s, group in by_scheme.items() if s != against}


def _draw_row(ax: Axes, y: int, values: list[float], group: Group | None, style: Style) -> None:
    if found := estimate(values):
        ax.plot(values, [y + 0.18] * len(values), ".", color=style.color, markersize=3.5, alpha=0.7)
        if found.low is not None and found.high is not None:
            ax.plot([found.low, found.high], [y, y], color=style.color, linewidth=1.2)
        ax.plot([found.mean], [y], marker=style.marker, color=style.color)
    if group and len(values) < len(group.members):
        why = next((s for s in ("diverged", "unsupported", "failed") if group.having(s)), "no pair")
        text = f"{len(values)}/{len(group.members)}" if values else why
        ax.text(0.99, y, text, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=7, color="#555555")


def _points_axis(ax: Axes, far: float) -> None:
    ax.set_xlim(-far, far)
    if far <= 3 * LINEAR:
        return
    ax.set_xscale("symlog", linthresh=LINEAR, linscale=1.0)
    ticks = [t for t in (1, 10, 100) if t <= far]
    ax.xaxis.set_major_locator(FixedLocator([*(-t for t in reversed(ticks)), 0, *ticks]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    ax.xaxis.set_minor_locator(NullLocator())
