"""The checks of a study's claims, drawn: a panel each, in its own unit."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from normbench.claims.tables import measured
from normbench.claims.verdicts import MARKS, Answer, Judged
from normbench.plots.drawing import Figure, finish, grid, panels, plain_ticks

NAME, TITLE = "claims", "Claims: what was found, and what they expect"
WIDTH = 54  # signs in a line


def draw(found: Sequence[Judged], synthetic: bool) -> list[Figure]:
    """A panel for each check that has a number."""
    shown = [(judged, answer) for judged in found for answer in judged.answers if answer.number is not None]
    if not shown:
        return [Figure(NAME, TITLE, "Not drawn: no check has a number yet; the table of claims says why.")]
    rows, columns = grid(len(shown), 3)
    canvas, axes = panels(rows, columns, 3.8, 1.75)
    flat = [ax for row in axes for ax in row]
    for ax, (judged, answer) in zip(flat, shown, strict=False):
        _panel(ax, answer)
        mark, color = MARKS[answer.verdict]
        ax.set_title(f"{mark} {judged.claim.id}: {answer.verdict}", color=color, fontweight="bold", loc="left")
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    silent = sum(len(judged.answers) for judged in found) - len(shown)
    caption = (
        "Dots: a seed each, of the pairs that have a number. Square and bar: their mean with the Student t interval "
        "that decides (95% for all checks of a claim together; an arrow: open, as a run never gets there). Dashed: "
        "the margin; shaded: what the claim expects. Supported: all of the bar in the shade; contradicted: none of it."
        + f" Without a number: {silent} of the checks."
        * bool(silent)
    )
    return [finish(NAME, TITLE, caption, canvas, synthetic)]


def _panel(ax: Axes, answer: Answer) -> None:
    check, color = answer.check, MARKS[answer.verdict][1]
    assert answer.number is not None
    limits = [check.shown(limit) for limit in check.limits]
    ends = [end for end in (answer.low, answer.high) if end is not None and math.isfinite(end)]
    reach = [*answer.values.values(), *ends, *limits, answer.number]
    if check.ratio and min(reach) > 0:
        ax.set_xscale("log")
        span = math.log(max(reach) / min(reach)) or 0.1
        left, right = min(reach) * math.exp(-0.15 * span), max(reach) * math.exp(0.15 * span)
    else:
        span = (max(reach) - min(reach)) or max(abs(answer.number), 1e-12)
        left, right = min(reach) - 0.15 * span, max(reach) + 0.15 * span
    ax.set_xlim(left, right)
    low, high = {"higher": (limits[0], right), "lower": (left, limits[0]), "equal": (limits[0], limits[-1])}[
        check.expect
    ]
    ax.axvspan(low, high, color="#E3EDF5", linewidth=0)
    for limit in limits:
        ax.axvline(limit, color="#333333", linestyle="--", linewidth=1)
    values = list(answer.values.values())
    ax.plot(values, [0.7] * len(values), "o", color="#333333", markersize=4, alpha=0.6)
    if answer.low is not None and answer.high is not None:
        bar = [left if math.isinf(answer.low) else answer.low, right if math.isinf(answer.high) else answer.high]
        ax.plot(bar, [0.3, 0.3], color=color, linewidth=2)
        for end, place, arrow in ((answer.low, left, "<"), (answer.high, right, ">")):
            if math.isinf(end):
                ax.plot([place], [0.3], marker=arrow, color=color, markersize=8, clip_on=False)
    ax.plot([answer.number], [0.3], "s", color=color, markersize=7)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_locator(NullLocator())
    if ax.get_xscale() == "log":
        plain_ticks(ax.xaxis)
    words = "\n".join(textwrap.wrap(check.words, WIDTH, max_lines=3, placeholder=" …"))
    ax.set_xlabel(f"{words}\n{measured(answer)}", fontsize=7.5)
