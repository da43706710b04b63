"""Each scheme against a reference, paired by seed, each at its own best lr: the table of that name as a forest plot."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.best_lr import compare_at_best_lr
from normbench.analysis.comparisons import Versus
from normbench.analysis.groups import label
from normbench.plots.drawing import grid, omitted, panels, symlog_axis
from normbench.plots.palette import Style, palette
from normbench.plots.view import Drawn, View

PANELS = 8
LINEAR = 2.0  # points: beyond, the axis is logarithmic where a scheme that fails would hide all others


def draw(view: View) -> Drawn | None:
    """A panel per setting but the lr, a row per scheme."""
    reference, margin = view.against
    reference = reference if reference in view.groups.schemes else view.groups.schemes[0]
    compared = compare_at_best_lr(view.groups, reference, margin / 100)
    found = {setting: [v for v in compared if v.pairing.setting == setting] for setting in
             dict.fromkeys(v.pairing.setting for v in compared if v.result.n)}  # fmt: skip
    if not found:
        return None
    shown = dict(list(found.items())[:PANELS])
    schemes = [s for s in view.groups.schemes if any(v.pairing.scheme == s for own in shown.values() for v in own)]
    rows, columns = grid(len(shown))
    width = 6.5 if columns == 1 else max(2.6, 11 / columns)
    canvas, axes = panels(rows, columns, width, 0.8 + 0.26 * len(schemes), sharex=True, sharey=True)
    flat, styles = [ax for row in axes for ax in row], palette(view.groups.schemes)
    values, names = [], set[str]()
    for ax, (setting, own) in zip(flat, shown.items(), strict=False):
        ax.axvspan(-margin, margin, color="#DDDDDD", linewidth=0)
        ax.axvline(0, color="#555555", linewidth=0.8)
        for versus in own:
            scheme = versus.pairing.scheme
            values += _row(ax, schemes.index(scheme), versus, styles[scheme])
        names |= {name for v in own for arm in v.pairing.arms for name in arm.runs.index}
        ax.set_title(label(setting, ""))
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    flat[0].set_ylim(len(schemes) - 0.5, -0.5)
    flat[0].set_yticks(range(len(schemes)), schemes)
    far = max(1.3 * float(np.abs(values).max()), 2 * margin)
    flat[0].set_xlim(-far, far)
    log = symlog_axis(flat[0], "x", values, LINEAR)
    canvas.supxlabel(f"test accuracy minus that of {reference}, percentage points", fontsize=9)
    dots = Line2D([], [], color="#555555", marker=".", linestyle="", label="a seed")
    bar = Line2D([], [], color="#555555", marker="s", label="mean, 95% interval")
    canvas.legend(handles=[dots, bar], loc="outside upper center", ncols=2)
    best = max((v for own in shown.values() for v in own), key=lambda v: v.result.difference or -np.inf)
    where = label(best.pairing.setting, "")
    parts = [
        f"Furthest ahead of {reference}: {best.pairing.scheme}{' at ' * bool(where)}{where}, by",
        f"{100 * (best.result.difference or 0):+.2f} points ({best.verdict or 'no verdict'}). Test accuracy minus that",
        f"of {reference} with the same seed, each at its own best lr, from {len(values)} pairs of complete runs:",
        "equal starting weights and equal batches. To the right is better. Bars: 95% Student t interval of the mean",
        "difference from three seeds on (new seeds on this test set, not new images; cut where accuracy ends and at",
        f"the edge), not corrected for the number of comparisons. Shaded: the margin of ±{margin:g} points. At the",
        "right: of how many runs there is a pair, or why of none.",
        f"The axis is linear up to {LINEAR:g} points, logarithmic beyond." * log,
        omitted(PANELS, len(found), "settings"),
    ]
    runs = view.every.loc[[name for name in view.every.index if name in names]]
    panels_show = [key for key in view.groups.varying if key != "lr" and len(shown) > 1]
    return Drawn(canvas, view.line(runs, *panels_show), " ".join(filter(None, parts)))


def _row(ax: Axes, y: int, versus: Versus, style: Style) -> list[float]:
    """Draw one comparison; the difference of each pair, in points."""
    ours, theirs = (arm.numbers("test_accuracy") for arm in versus.pairing.arms)
    differences, result = (100 * (ours - theirs)).dropna(), versus.result
    if len(differences):
        ax.plot(differences, [y + 0.18] * len(differences), ".", color=style.color, markersize=3.5, alpha=0.7)
        if result.n > 2 and result.low is not None and result.high is not None:
            other = 100 * float(theirs.mean())
            low, high = np.clip([100 * result.low, 100 * result.high], -other, 100 - other)
            ax.plot([low, high], [y, y], color=style.color, linewidth=1.2)
        ax.plot([100 * (result.difference or 0)], [y], marker=style.marker, color=style.color)
    arm = versus.pairing.arms[0]
    if len(differences) < len(arm.members):
        why = next((status for status in ("diverged", "unsupported", "failed") if arm.count(status)), "no pair")
        text = f"{len(differences)}/{len(arm.members)}" if len(differences) else why
        ax.text(0.99, y, text, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=7, color="#555555")
    return differences.tolist()
