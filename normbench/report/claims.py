"""Claims as they are shown: each check as an interval on an axis, and the scoreboard of them all as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from normbench.claims.claim import Check, Claim
from normbench.claims.scoreboard import HOW, folder, needs, statements, status_of
from normbench.claims.verdicts import MARKS, Answer, Judged
from normbench.files import write_atomically
from normbench.report import html

WIDTH, TOP, BAR, AXIS, HEIGHT, EDGE = 340, 15, 37, 47, 62, 8  # of a drawing, in pixels
SIGN = 6.2  # width of a letter


def write(claims: Sequence[Claim], results: Path) -> Path:
    """Write the scoreboard of these claims as a page, as Markdown and as CSV; the path of the page. Raises OSError."""
    here, found = folder(results), status_of(claims, results)
    here.mkdir(parents=True, exist_ok=True)
    table = statements(found)
    files = {"csv": table.to_csv(), "md": table.to_markdown(), "html": page(found)}
    for kind, text in files.items():
        write_atomically(here / f"scoreboard.{kind}", text.encode())
    return here / "scoreboard.html"


def page(found: Sequence[Judged]) -> str:
    """The scoreboard: a row for each statement in the teaching order, to be filtered by topic and verdict."""
    table = statements(found)
    counts = table.caption.removesuffix(HOW)
    shown = {key: list(dict.fromkeys(row[key] for row in table.rows)) for key in ("topic", "verdict")}
    values = {
        "topic": ("Only these topics", shown["topic"]),
        "verdict": ("Only these verdicts", [word for word in MARKS if word in shown["verdict"]]),
    }
    filters = [(key, legend, words) for key, (legend, words) in values.items() if len(words) > 1]
    return html.render(
        "scoreboard.html", FILTERS, ["page.js"], claims=found, counts=counts, caption=HOW, filters=filters
    )


def figure(claim: Claim, base: str) -> str:
    """The address of its figure from a page in that folder of results/, ""  where there is none."""
    return f"{base}{claim.study}/report/figures/{claim.figure}.png" if claim.figure else ""


def mark(verdict: str) -> str:
    return MARKS[verdict][0] if verdict in MARKS else "–"


def interval(answer: Answer) -> Markup:
    """A check on an axis: its seeds, their mean and interval, and, shaded from the margin on, what the claim expects.

    Text is text, and colours are those of the page's style.
    """
    check = answer.check
    if not answer.n:
        return Markup("")
    ends = [end for end in (answer.low, answer.high) if end is not None]
    limits = [check.shown(limit) for limit in check.limits]
    middle = [] if answer.number is None else [answer.number]
    axis = _Axis([*answer.values.values(), *ends, *middle, *limits, check.shown(0.0)], check)
    margins = [axis.place(limit) for limit in limits]
    first, last = {"higher": (margins[0], WIDTH), "lower": (0.0, margins[0])}.get(check.expect, margins)
    parts = [f'<rect x="{first:.1f}" y="{TOP}" width="{last - first:.1f}" height="{AXIS - TOP}" class="zone"/>']
    parts += [_zone_name(first, last, check.expect), _line(0, AXIS, WIDTH, AXIS, "axis")]
    parts += [_line(x, TOP, x, AXIS, "margin") for x in margins]
    for x, text in axis.ticks():
        parts += [_line(x, AXIS, x, AXIS + 4, "axis")]
        parts += [f'<text x="{x:.1f}" y="{HEIGHT - 1}" text-anchor="middle">{text}</text>']
    parts += [f'<circle cx="{axis.place(v):.1f}" cy="23" r="2.5" class="seed"/>' for v in answer.values.values()]
    parts += [_line(axis.place(low), BAR, axis.place(high), BAR, "interval") for low, high in filter(None, [ends])]
    for end, way in zip(ends, (-1, 1), strict=False):
        if not axis.holds(end):  # an arrow
            parts += [
                f'<path d="M{axis.place(end) - 5 * way:.1f} {BAR - 5}l{5 * way} 5l{-5 * way} 5" class="interval"/>'
            ]
    parts += [f'<rect x="{axis.place(v) - 4:.1f}" y="{BAR - 4}" width="8" height="8" class="number"/>' for v in middle]
    head = Markup('<svg class="check" viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}; claimed: {}">')
    return head.format(WIDTH, HEIGHT, WIDTH, answer.measured, check.expected) + Markup("".join(parts) + "</svg>")


class _Axis:
    """The axis of a check's numbers, logarithmic for quotients, with room at both ends; infinite ones stand there."""

    def __init__(self, values: Sequence[float], check: Check) -> None:
        self.check, self.scale = check, 100 if check.unit == "points" else 1
        known = [x for x in map(self._turn, values) if math.isfinite(x)]
        room = 0.12 * (max(known) - min(known)) or 0.1 * abs(known[0]) or 1.0
        self.low, self.high = min(known) - room, max(known) + room

    def _turn(self, value: float) -> float:
        return self.check.effect(self.scale * value)

    def holds(self, value: float) -> bool:
        return self.low <= self._turn(value) <= self.high

    def place(self, value: float) -> float:
        """In pixels from the left."""
        share = (min(max(self._turn(value), self.low), self.high) - self.low) / (self.high - self.low)
        return EDGE + share * (WIDTH - 2 * EDGE)

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers with their places, as many as have room."""
        from normbench.plots.drawing import log_ticks, round_ticks  # matplotlib takes half a second

        log = self.check.ratio
        low, high = (math.exp(end) if log else end for end in (self.low, self.high))
        found = [(self.place(x / self.scale), f"{x:,.10g}") for x in (log_ticks if log else round_ticks)(low, high)]
        wide = SIGN * max((len(text) for _, text in found), default=1) + 8
        kept: list[tuple[float, str]] = []
        for x, text in found:
            if wide / 2 <= x <= WIDTH - wide / 2 and (not kept or x - kept[-1][0] >= wide):
                kept.append((x, text))
        return kept


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1}" x2="{x2:.1f}" y2="{y2}" class="{kind}"/>'


def _zone_name(first: float, last: float, expect: str) -> str:
    """The word "claimed" above the zone, or beside it with an arrow where the zone is too narrow."""
    wide = 9 * SIGN
    x, anchor, words = min(max((first + last) / 2, wide / 2), WIDTH - wide / 2), "middle", "claimed"
    if last - first < wide and expect == "higher":
        x, anchor, words = first - 3, "end", "claimed →"
    elif last - first < wide and expect == "lower":
        x, anchor, words = last + 3, "start", "← claimed"
    return f'<text x="{x:.1f}" y="{TOP - 4}" text-anchor="{anchor}">{words}</text>'


FILTERS: dict[str, Any] = {"interval": interval, "needs": needs, "figure": figure, "mark": mark}
