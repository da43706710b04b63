"""Claims as tables: those of a study, checked; and how all of them stand, in files in results/claims/report."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from normbench.analysis.tables import Column, Table, read_rows
from normbench.claims.claim import STATEMENTS, Claim
from normbench.claims.verdicts import MARKS, Calculated, Judged, judge
from normbench.config.options import config_dir
from normbench.files import read_bytes, write_atomically

HOW = (
    "Statements, checks and margins are those of `configs/claims`. They are answered in the setting that stands beside "
    "them, and in no other. Each check is one number per seed, with a Student t interval of 95% for all checks of the "
    "claim together (Bonferroni: 1 - 0.05/k for k; 1 - 0.05/km where the same seeds have chosen among m lrs). "
    "supported: all of the interval is where the claim wants it, by the margin or more; contradicted: none of it is; "
    "inconclusive: neither; undecided: a best lr lies at the edge of those tried. A statement needs all of its checks, "
    "and one that is contradicted contradicts it."
)
CHECKS = (
    "From the pairs of runs that n counts, same seed on both sides; what became of the others is said beside. An "
    "interval that ends at ∞, or at a factor of 0, is open: some run never gets there."
)
OUT_OF_DATE = "out of date"  # the claim's file has changed since the report was built
RECORD = "record.json"  # {"calculations": {name: {"numbers": {...}}}}
ANSWER = ("verdict", "setting", "checks", "check", "measured", "expected")  # what a study's report has found


def statements(found: Sequence[Judged]) -> Table:
    """A row for each statement: its setting, its verdict and how that came about, and the first of its checks."""
    rows = [
        {
            "claim": judged.claim.id, "statement": STATEMENTS[key], "sentence": sentence, "setting": judged.setting,
            "verdict": judged.verdict(key), "checks": judged.counted(key), "check": first.check.words,
            "measured": first.measured, "expected": first.check.expected, "figure": judged.claim.figure,
            "source": judged.claim.source, "digest": judged.claim.digest,
        }
        for judged in found
        for key, sentence in judged.claim.statements.items()
        for first in judged.of(key)[:1]
    ]  # fmt: skip
    return Table("claims", "Claims", HOW, _columns(
        claim="claim", statement="", sentence="statement", setting="in", verdict="verdict", checks="checks",
        check="first check", measured="number", expected="expected", figure="figure", source="source",
    ), rows)  # fmt: skip


def checks(found: Sequence[Judged]) -> Table:
    """A row for each check, with every number."""
    rows = [
        {
            "claim": judged.claim.id, "answers": ", ".join(STATEMENTS[key] for key in check.answers),
            "check": check.words, "measured": answer.measured, "expected": check.expected,
            "verdict": answer.verdict, "number": answer.number, "low": answer.low, "high": answer.high,
            "n": answer.n, "level": answer.level, "expect": check.expect,
            "margin": check.margin, "ratio": check.ratio,
            "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in answer.values.items()),
            "remarks": answer.remarks,
        }
        for judged in found
        for answer in judged.answers
        for check in [answer.check]
    ]  # fmt: skip
    return Table("claim_checks", "Claims, check by check", CHECKS, _columns(
        claim="claim", answers="answers", check="check", measured="number (interval)", expected="expected",
        verdict="verdict", remarks="runs",
    ), rows)  # fmt: skip


def _columns(**headings: str) -> list[Column]:
    return [Column(key, words, str, numeric=False) for key, words in headings.items()]


def folder(results: Path) -> Path:
    return results / "claims" / "report"


def calculated(results: Path) -> Calculated:
    """The numbers of calculations that were made so far; none where the file is missing or damaged."""
    try:
        made = json.loads(read_bytes(folder(results) / RECORD))["calculations"]
        return {name: dict(calculation["numbers"]) for name, calculation in made.items()}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return {}


def write_calculated(results: Path, known: Calculated) -> None:
    """Raises OSError."""
    folder(results).mkdir(parents=True, exist_ok=True)
    record = {"calculations": {name: {"numbers": numbers} for name, numbers in known.items()}}
    write_atomically(folder(results) / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def minutes(study: str) -> str:
    """What the experiment's file says that it takes, "15"; "" where it does not; "< 1" for calculations alone."""
    with suppress(OSError):
        head = (config_dir() / "experiment" / f"{study}.yaml").read_text(encoding="utf-8").splitlines()[:4]
        found = re.search(r"([\d.]+) min", " ".join(line for line in head if line.startswith("#")))
        return found[1] if found else ""
    return "" if study else "< 1"


def status_of(claims: Sequence[Claim], results: Path) -> list[dict[str, Any]]:
    """A row for each statement: its verdict so far ("" for none), and the check that leads it."""
    answers: dict[tuple[str, str, str], Mapping[str, str]] = {}
    for study in {claim.study for claim in claims}:
        report = results / study / "report" if study else folder(results)
        with suppress(OSError, ValueError, csv.Error):
            made = read_rows(report / "tables" / "claims.csv")
            answers |= {(study, row["claim"], row["statement"]): row for row in made}
    rows = []
    for claim in claims:
        study, figure = claim.study, claim.figure
        for key, sentence in claim.statements.items():
            answer = answers.get((study, claim.id, STATEMENTS[key]), {})
            if answer and answer.get("digest") != claim.digest:
                answer = {"verdict": OUT_OF_DATE}
            rows.append({
                "claim": claim.id, "statement": STATEMENTS[key], "sentence": sentence,
                **{part: answer.get(part, "") for part in ANSWER},
                "command": f"normbench run experiment={study}" if study else f"normbench claims --run {claim.id}",
                "minutes": minutes(study), "source": claim.source,
                "figure": f"results/{study}/report/figures/{figure}.png" if figure else "",
            })  # fmt: skip
    return rows


def write(claims: Sequence[Claim], results: Path) -> None:
    """Write the scoreboard, and the answers of claims of calculations alone beside it. Raises OSError."""
    here, known = folder(results), calculated(results)
    here.mkdir(parents=True, exist_ok=True)
    if alone := [judge(claim, None, known) for claim in claims if not claim.study]:
        (here / "tables").mkdir(exist_ok=True)
        for made in (statements(alone), checks(alone)):
            write_atomically(here / "tables" / f"{made.name}.csv", made.to_csv().encode())
    shown = table(status_of(claims, results))
    write_atomically(here / f"{shown.name}.csv", shown.to_csv().encode())
    write_atomically(here / f"{shown.name}.md", shown.to_markdown().encode())


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The scoreboard."""
    verdicts = [row["verdict"] or "not run" for row in rows]
    counts = [f"{n} {word}" for word in (*MARKS, OUT_OF_DATE, "not run") if (n := verdicts.count(word))]
    caption = (
        f"{len(rows)} statements: {', '.join(counts)}. Beside each the setting that it was tested in, and the first of "
        "its checks: number, interval, and what the claim expects; the report of its study has them all. Minutes: of "
        "the study, on two cores."
    )
    shown = [row | {"verdict": verdict} for row, verdict in zip(rows, verdicts, strict=True)]
    return Table("scoreboard", "Claims and what our runs say", caption, _columns(
        claim="claim", statement="", sentence="statement", setting="in", verdict="verdict", checks="checks",
        check="first check", measured="number", expected="expected", minutes="min", command="command", figure="figure",
        source="source",
    ), shown)  # fmt: skip
