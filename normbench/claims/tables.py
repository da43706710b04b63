"""The claims of a study as tables: a row for each statement, and one for each check; and how numbers are said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from normbench.analysis.tables import Column, Table
from normbench.claims.claim import STATEMENTS, Check
from normbench.claims.verdicts import MARKS, Answer, Judged

HOW = (
    "Statements, checks and margins are those of `configs/claims`. Each check is one number per seed, with a "
    "Student t interval of 95% for all checks of the claim together (Bonferroni: 1 - 0.05/k for k). "
    "supported: all of the interval is where the claim wants it, by the margin or more; contradicted: none of it is; "
    "inconclusive: neither; undecided: a best lr lies at the edge of those tried. A statement needs "
    "all of its checks, and one that is contradicted contradicts it."
)


def statements(found: Sequence[Judged]) -> Table:
    """A row for each statement, with its verdict and where that comes from."""
    rows: list[dict[str, Any]] = []
    for judged in found:
        claim = judged.claim
        for key, sentence in claim.statements.items():
            rows.append({
                "claim": claim.id, "statement": STATEMENTS[key], "sentence": sentence,
                "verdict": judged.verdict(key), "checks": counted(judged, key),
                "found": " / ".join(finding(answer) for answer in judged.of(key)),
                "figure": claim.figure, "source": claim.source, "digest": claim.digest,
            })  # fmt: skip
    headings = {"claim": "claim", "statement": "", "sentence": "statement", "verdict": "verdict", "checks": "checks",
                "found": "what was found", "figure": "figure", "source": "source"}  # fmt: skip
    return Table("claims", "Claims", HOW, _columns(headings), rows)


def checks(found: Sequence[Judged]) -> Table:
    """A row for each check, with every number."""
    rows: list[dict[str, Any]] = []
    for judged in found:
        for answer in judged.answers:
            check = answer.check
            rows.append({
                "claim": judged.claim.id, "answers": ", ".join(STATEMENTS[key] for key in check.answers),
                "check": check.words, "measured": measured(answer), "expected": expected(check),
                "verdict": answer.verdict, "number": answer.number, "low": answer.low, "high": answer.high,
                "n": answer.n, "exact": answer.exact, "level": judged.claim.level, "expect": check.expect,
                "margin": check.margin, "ratio": check.ratio,
                "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in answer.values.items()),
                "remarks": answer.remarks,
            })  # fmt: skip
    headings = {"claim": "claim", "answers": "answers", "check": "check", "measured": "number (interval)",
                "expected": "expected", "verdict": "verdict", "remarks": "runs"}  # fmt: skip
    caption = (
        "From the pairs of runs that n counts, same seed on both sides; what became of the others is said beside. An "
        "interval that ends at ∞ is open: some run never gets there."
    )
    return Table("claim_checks", "Claims, check by check", caption, _columns(headings), rows)


def _columns(headings: dict[str, str]) -> list[Column]:
    sort = {"measured": "number"}
    return [Column(key, words, str, sort.get(key, ""), numeric=False) for key, words in headings.items()]


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
    return ", ".join(f"{verdicts.count(word)} {word}" for word in MARKS if word in verdicts)
