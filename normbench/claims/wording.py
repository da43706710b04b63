"""A claim's answers as text: numbers, intervals, what was expected."""

from __future__ import annotations

import math

from normbench.claims.checks import Answer, Judged
from normbench.claims.claim import Check
from normbench.claims.verdicts import LOOKS


def short(value: float, sign: bool = False) -> str:
    """Three digits, or whole numbers: 0.0123, 9,300, 1e-17."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:{'+' * sign},.0f}" if abs(value) >= 1000 else f"{value:{'+' * sign}.3g}"


def _shown(check: Check, value: float) -> str:
    return short(value, sign=bool(check.against) and not check.ratio)


def measured(answer: Answer) -> str:
    """Such as "-0.57 (-0.61 to -0.53, n = 5)"."""
    if answer.number is None:
        return "no number"
    text, n = _shown(answer.check, answer.number), f"n = {answer.n}"
    if answer.exact:
        return f"{text} (exact{f', {n}' * (answer.n > 1)})"
    if answer.low is None or answer.high is None:
        return f"{text} (no interval, {n})"
    return f"{text} ({_shown(answer.check, answer.low)} to {_shown(answer.check, answer.high)}, {n})"


def expected(check: Check) -> str:
    """Such as "-0.005 or less"; factors where the check is of quotients."""
    ends = [_shown(check, check.shown(limit)) for limit in check.limits]
    times = " times" if check.ratio and check.against else ""
    return " to ".join(ends) + times + {"higher": " or more", "lower": " or less", "equal": ""}[check.expect]


def finding(answer: Answer) -> str:
    return f"{answer.check.words}: {measured(answer)}, expected {expected(answer.check)}: {answer.verdict}"


def counted(judged: Judged, statement: str) -> str:
    """How a verdict came about: "1 supported, 1 inconclusive"."""
    verdicts = [answer.verdict for answer in judged.of(statement)]
    return ", ".join(f"{verdicts.count(word)} {word}" for word in LOOKS if word in verdicts)
