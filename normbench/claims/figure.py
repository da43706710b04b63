"""The checks of a study's claims, drawn: a panel each, in its own unit."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from normbench.claims.verdicts import MARKS, Answer, Judged
from normbench.plots.drawing import Figure, finish, grid, look, panels, plain_ticks

NAME, TITLE = "claims", "Claims: what was found, and what they expect"
WIDTH = 54  # signs in a line
CAPTION = (
    "Dots: a seed each, of the pairs that have a number. Square and bar: their mean with the Student t interval that "
    "decides (95% for all checks of a claim together), or, where some run never gets there, their median with its own; "
    "an arrow: open. Dashed: the margin; shaded: what the claim expects. Supported: all of the bar in the shade; "
    "contradicted: none of it."
)


def draw(found: Sequence[Judged], synthetic: bool) -> Figure:
    """A panel for each check that has a number."""
    shown = [(judged, answer) for judged in found for answer in judged.answers if answer.n]
    if not shown:
        return empty("Not drawn: no check has a number yet; the table of claims says why.")
    with look():
        canvas, axes = panels(*grid(len(shown), 3), 3.8, 1.75)
        flat = [ax for row in axes for ax in row]
        for ax, (judged, answer) in zip(flat, shown, strict=False):
            _panel(ax, answer)
            mark, color = MARKS[answer.verdict]
            ax.set_title(f"{mark} {judged.claim.id}: {answer.verdict}", color=color, fontweight="bold", loc="left")
        for ax in flat[len(shown) :]:
            ax.set_visible(False)
        silent = sum(len(judged.answers) for judged in found) - len(shown)
        caption = CAPTION + f" Without a number: {silent} of the checks." * bool(silent)
        return finish(NAME, TITLE, caption, canvas, synthetic)


def empty(why: str) -> Figure:
    return Figure(NAME, TITLE, why)


def _panel(ax: Axes, answer: Answer) -> None:
    check, color = answer.check, MARKS[answer.verdict][1]
    limits = [check.shown(limit) for limit in check.limits]
    ends = [end for end in (answer.low, answer.high) if end is not None]
    seen = [n for n in (*answer.values.values(), *ends, *limits) if math.isfinite(n) and (n > 0 or not check.ratio)]
    if check.ratio:
        ax.set_xscale("log")
    ax.margins(x=0.15)
    ax.plot(seen, [0.5] * len(seen), alpha=0)  # which sets the limits: beyond them everything is open
    left, right = ax.get_xlim()
    ax.set(xlim=(left, right), ylim=(0, 1))
    shade = {"higher": (limits[0], right), "lower": (left, limits[0]), "equal": (limits[0], limits[-1])}[check.expect]
    ax.axvspan(*shade, color="#E3EDF5", linewidth=0)
    for limit in limits:
        ax.axvline(limit, color="#333333", linestyle="--", linewidth=1)
    seeds = np.clip(list(answer.values.values()), left, right)
    ax.plot(seeds, [0.7] * len(seeds), "o", color="#333333", markersize=4, alpha=0.6, clip_on=False)
    ax.plot(np.clip(ends, left, right), [0.3] * len(ends), color=color, linewidth=2)
    for end, marker in zip(ends, "<>", strict=False):
        if not left <= end <= right:
            ax.plot(np.clip([end], left, right), [0.3], marker=marker, color=color, markersize=8, clip_on=False)
    if answer.number is not None:
        ax.plot([answer.number], [0.3], "s", color=color, markersize=7)
    ax.yaxis.set_major_locator(NullLocator())
    if check.ratio:
        plain_ticks(ax.xaxis)
    words = "\n".join(textwrap.wrap(check.words, WIDTH, max_lines=3, placeholder=" …"))
    ax.set_xlabel(f"{words}\n{answer.measured}", fontsize=7.5)
