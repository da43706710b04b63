"""Each scheme against a reference, paired by seed, each at its own best lr: the table of that name as a forest plot."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.best_lr import compare_at_best_lr
from normbench.analysis.groups import label, order
from normbench.analysis.notes import interval_covers
from normbench.plots.drawing import SOFT, grid, legend, omitted, panel_grid, symlog_axis
from normbench.plots.palette import Style
from normbench.plots.view import Drawn, View

PANELS = 8
LINEAR = 2.0  # points: beyond, the axis is logarithmic where a scheme that fails would hide all others


def draw(view: View) -> Drawn | None:
    """A panel per setting but the lr, a row per scheme."""
    reference, margin = view.against
    reference = reference if reference in view.groups.schemes else view.groups.schemes[0]
    compared = compare_at_best_lr(view.groups, reference, margin / 100)
    every = list(dict.fromkeys(c["setting"] for c in compared if c["n"]))
    if not every:
        return None
    settings = every[:PANELS]
    compared = [c for c in compared if c["setting"] in settings]
    schemes = order(c["scheme"] for c in compared)
    _, columns = grid(len(settings))
    width = 6.5 if columns == 1 else max(2.6, 11 / columns)
    canvas, flat = panel_grid(len(settings), width, 0.8 + 0.26 * len(schemes), sharex=True, sharey=True)
    values: list[float] = []
    for ax, setting in zip(flat, settings, strict=True):
        ax.axvspan(-margin, margin, color="#808080", alpha=0.25, linewidth=0)
        ax.axvline(0, color=SOFT, linewidth=0.8)
        for found in (c for c in compared if c["setting"] == setting):
            values += _row(ax, schemes.index(found["scheme"]), found, view.styles[found["scheme"]])
        ax.set_title(label(setting, "") if len(settings) > 1 else "")
    flat[0].set_ylim(len(schemes) - 0.5, -0.5)
    flat[0].set_yticks(range(len(schemes)), schemes)
    far = max(1.3 * float(np.abs(values).max()), 2 * margin)
    flat[0].set_xlim(-far, far)
    log = symlog_axis(flat[0], "x", values, LINEAR)
    canvas.supxlabel(f"test accuracy minus that of {reference}, percentage points", fontsize=9)
    dots = Line2D([], [], color=SOFT, marker=".", linestyle="", label="a seed")
    bar = Line2D([], [], color=SOFT, marker="s", label="mean, 95% interval")
    legend(canvas, {}, [dots, bar])
    best = max((c for c in compared if c["n"]), key=lambda c: float(c["difference"]))
    where = label(best["setting"], "")
    parts = [
        f"Furthest ahead of {reference}: {best['scheme']}{' at ' * bool(where)}{where}, by",
        f"{100 * best['difference']:+.2f} points ({best['verdict'] or 'no verdict'}). Test accuracy minus that of",
        f"{reference} with the same seed, each at its own best lr, from {len(values)} pairs: equal",
        "starting weights and equal batches. To the right is better. Bars: 95% Student t interval of the mean",
        f"difference from three seeds on ({interval_covers(view.groups.members)}; cut where accuracy ends and at",
        "the edge), corrected for the lrs tried where the same seeds chose, not for the number of comparisons.",
        f"Shaded: the margin of ±{margin:g} points. At the right: of how many runs there is a pair, or why of none, or",
        "that a best lr lies at the edge of those tried. A diverged run counts at chance.",
        f"The axis is linear up to {LINEAR:g} points, logarithmic beyond." * log,
        omitted(PANELS, len(every), "settings"),
    ]
    names = {name for c in compared for group in (c["ours"], c["theirs"]) for name in group.runs.index}
    on_axes = [key for key in view.groups.varying if key != "lr" and len(settings) > 1]
    line = view.line(view.every[view.every.index.isin(names)], *on_axes)
    return Drawn(canvas, line, " ".join(filter(None, parts)))


def _row(ax: Axes, y: int, found: dict[str, Any], style: Style) -> list[float]:
    """Draw one comparison; the difference of each pair, in points."""
    ours, theirs = (found[arm].accuracies() for arm in ("ours", "theirs"))
    differences = [100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]
    if differences:
        ax.plot(differences, [y + 0.18] * len(differences), ".", color=style.color, markersize=3.5, alpha=0.7)
        if len(differences) > 2 and found["low"] is not None:
            other = 100 * float(np.mean(list(theirs.values())))
            ends = np.clip([100 * found["low"], 100 * found["high"]], -other, 100 - other)
            ax.plot(ends, [y, y], color=style.color, linewidth=1.2)
        ax.plot([100 * found["difference"]], [y], marker=style.marker, color=style.color)
    members, undecided = len(found["ours"].members), found["verdict"] == "undecided"
    if undecided or len(differences) < members:
        statuses = ("diverged", "unsupported", "failed")
        why = next((status for status in statuses if found["ours"].count(status)), "no pair")
        text = "lr at the edge" if undecided else f"{len(differences)}/{members}" if differences else why
        place: Any = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom"}  # above the interval
        ax.text(0.99, y - 0.08, text, fontsize=7, color=SOFT, **place)
    return differences
