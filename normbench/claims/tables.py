"""The claims of a study as tables: a row for each statement, and one for each check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from normbench.analysis.tables import Column, Table
from normbench.claims.checks import Judged
from normbench.claims.claim import STATEMENTS
from normbench.claims.wording import counted, expected, finding, measured

HOW = (
    "Statements, checks and margins are those of `configs/claims`. Each check is one number per seed, with a "
    "Student t interval of 95% for all checks of the claim together (Bonferroni: 1 - 0.05/k for k). "
    "supported: all of the interval is where the claim wants it, by the margin or more; contradicted: none of it is; "
    "inconclusive: neither. A statement needs all of its checks; mixed: some are supported and some contradicted."
)


def statements(found: Sequence[Judged]) -> Table:
    """A row for each statement, with its verdict and where that comes from."""
    rows: list[dict[str, Any]] = []
    for judged in found:
        claim = judged.claim
        for key, sentence in claim.statements.items():
            answers = judged.of(key)
            rows.append({
                "claim": claim.id, "statement": STATEMENTS[key], "sentence": sentence,
                "verdict": judged.verdict(key), "checks": counted(judged, key),
                "found": " / ".join(finding(answer) for answer in answers),
                "figure": claim.figure, "source": claim.source, "digest": claim.digest,
            })  # fmt: skip
    columns = [
        Column("claim", "claim", numeric=False),
        Column("statement", "", numeric=False),
        Column("sentence", "statement", numeric=False),
        Column("verdict", "verdict", numeric=False),
        Column("checks", "checks", numeric=False),
        Column("found", "what was found", numeric=False),
        Column("figure", "figure", str, numeric=False),
        Column("source", "source", numeric=False),
    ]
    return Table("claims", "Claims", HOW, columns, rows)


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
    columns = [
        Column("claim", "claim", numeric=False),
        Column("answers", "answers", numeric=False),
        Column("check", "check", numeric=False),
        Column("measured", "number (interval)", sort="number", numeric=False),
        Column("expected", "expected", numeric=False),
        Column("verdict", "verdict", numeric=False),
        Column("remarks", "runs", str, numeric=False),
    ]
    caption = (
        "From the pairs of runs that n counts, same seed on both sides; what became of the others is said beside. An"
        "  interval that ends at ∞ is open: some run never gets there, and counts at its last step."
    )
    return Table("claim_checks", "Claims, check by check", caption, columns, rows)
