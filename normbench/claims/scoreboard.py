"""How claims stand: their answers as tables of a report, and read again from those tables for the scoreboard."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from normbench.analysis.tables import Column, Table, read_rows
from normbench.claims.claim import STATEMENTS, Check, Claim
from normbench.claims.verdicts import DEPENDS, MARKS, UNDECIDED, Answer, Calculated, Judged, judge
from normbench.config.options import config_dir
from normbench.files import read_bytes, write_atomically

HOW = (
    "Statements, checks and margins are those of `configs/claims`. They are answered in the setting that stands beside "
    "them, and in no other. Each check is one number per seed, with a Student t interval of 95% for all checks of the "
    "claim together (Bonferroni: 1 - 0.05/k for k; 1 - 0.05/km where the same seeds have chosen among m lrs). "
    "supported: all of the interval is where the claim wants it, by the margin or more; true but small: all of it has "
    "the direction that the claim says, and none of it reaches the margin; contradicted: none of it is where the claim "
    "wants it; undecided: neither, or a best lr lies at the edge of those tried. A statement needs all of its checks, "
    "and one that is contradicted contradicts it; it depends: as stated it holds in one setting, and in another, asked "
    "the same, it does not. The check beside a statement is the one that decides: the weakest of a supported one, the "
    "clearest that refutes, the one that is open. Seeds that are needed: for a verdict with a chance of 80%, were the "
    "true difference and spread those seen so far; they are new ones, and where the same seeds have chosen an lr the "
    "new ones count alone."
)
CHECKS = (
    "From the pairs of runs that n counts, same seed on both sides; what became of the others is said beside. An "
    "interval that ends at ∞, or at a factor of 0, is open: some run never gets there."
)
NOT_RUN, OUT_OF_DATE = "not run", "out of date"  # the claim has changed since the report was built
RECORD = "record.json"  # {"calculations": {name: {"numbers": {...}}}}


def statements(found: Sequence[Judged]) -> Table:
    """A row for each statement: its setting, its verdict and how that came about, and the check that decides."""
    rows = [_row(judged, key, sentence) for judged in found for key, sentence in judged.claim.statements.items()]
    verdicts = [row["verdict"] for row in rows]
    counts = [f"{n} {word}" for word in (*MARKS, OUT_OF_DATE, NOT_RUN) if (n := verdicts.count(word))]
    caption = f"{len(rows)} statements: {', '.join(counts)}. {HOW}"
    return Table("claims", "Claims and what our runs say", caption, _columns(
        claim="claim", topic="topic", statement="", sentence="statement", setting="in", verdict="verdict", why="checks",
        check="the check that decides", measured="number", expected="expected", needs="to settle it",
        command="command", minutes="min", figure="figure", source="source",
    ), rows)  # fmt: skip


def _row(judged: Judged, key: str, sentence: str) -> dict[str, str]:
    claim, deciding = judged.claim, judged.deciding(key)
    command = f"normbench run experiment={claim.study}" if claim.study else f"normbench claims --run {claim.id}"
    return {
        "claim": claim.id, "topic": claim.topic, "statement": STATEMENTS[key], "sentence": sentence,
        "setting": judged.setting, "verdict": judged.verdict(key), "why": judged.why(key),
        "check": "; ".join(answer.check.words for answer in deciding),
        "measured": "; ".join(answer.measured for answer in deciding),
        "expected": "; ".join(dict.fromkeys(answer.check.expected for answer in deciding)),
        "needs": needs(judged, key), "command": command, "minutes": minutes(claim.study),
        "figure": f"results/{claim.study}/report/figures/{claim.figure}.png" if claim.figure else "",
        "source": claim.source,
    }  # fmt: skip


def verdict_words(judged: Judged) -> list[str]:
    """A sentence for each statement: 'Supported: "..." -2.1 points (-2.6 to -1.6, n = 5).'"""
    rows = [_row(judged, key, sentence) for key, sentence in judged.claim.statements.items()]
    return [
        f'{row["verdict"].capitalize()}: "{row["sentence"]}" {row["check"]}: {row["measured"]}.'
        + f" To settle it: {row['needs']}." * bool(row["needs"])
        for row in rows
    ]


def needs(judged: Judged, statement: str) -> str:
    """What would decide an undecided statement, and how long that takes one core: "6 more seeds (40 s)"."""
    if judged.verdict(statement) != UNDECIDED:
        return ""
    [answer] = judged.deciding(statement)
    seconds = answer.seconds
    time = "" if seconds is None else f" ({seconds:.0f} s)" if seconds < 100 else f" ({seconds / 60:.0f} min)"
    return answer.needs + time


def checks(found: Sequence[Judged]) -> Table:
    """A row for each check, with every number."""
    rows = [
        {
            "claim": judged.claim.id, "place": place, "answers": ", ".join(STATEMENTS[key] for key in check.answers),
            "check": check.words, "measured": answer.measured, "expected": check.expected,
            "verdict": answer.verdict, "number": answer.number, "low": answer.low, "high": answer.high,
            "n": answer.n, "level": answer.level, "expect": check.expect,
            "margin": check.margin, "ratio": check.ratio,
            "seeds": " ".join(f"{seed}:{value:.6g}" for seed, value in answer.values.items()),
            "remarks": answer.remarks, "needs": answer.needs, "seconds": answer.seconds,
            "setting": judged.setting, "digest": judged.claim.digest,
        }
        for judged in found
        for place, answer in enumerate(judged.answers)
        for check in [answer.check]
    ]  # fmt: skip
    return Table("claim_checks", "Claims, check by check", CHECKS, _columns(
        claim="claim", answers="answers", check="check", measured="number (interval)", expected="expected",
        verdict="verdict", needs="to settle it", remarks="runs",
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


def status_of(claims: Sequence[Claim], results: Path) -> list[Judged]:
    """Each claim as it stands: calculations from their record, all others from the tables of their study's report."""
    known = calculated(results)
    rows: dict[str, list[dict[str, str]]] = {}
    for study in {claim.study for claim in claims if claim.study}:
        with suppress(OSError, ValueError, csv.Error):
            rows[study] = read_rows(results / study / "report" / "tables" / "claim_checks.csv")
    return [_stands(claim, rows.get(claim.study, []), known) for claim in claims]


def _stands(claim: Claim, rows: Sequence[Mapping[str, str]], known: Calculated) -> Judged:
    if not claim.study:
        made = all(name in known for name in claim.calculations)
        return judge(claim, None, known) if made else Judged(claim, (), claim.setting, NOT_RUN)
    own = [row for row in rows if row["claim"] == claim.id]
    try:
        current = own[0]["digest"] == claim.digest if own else False
        if not current:
            return Judged(claim, (), "", OUT_OF_DATE if own else NOT_RUN)
        answers = tuple(_read(check, row) for check, row in zip(claim.checks, own, strict=True))
    except (KeyError, ValueError):  # a table of an older version, or a damaged one
        return Judged(claim, (), "", OUT_OF_DATE)
    return Judged(claim, answers, own[0]["setting"])


def _read(check: Check, row: Mapping[str, str]) -> Answer:
    """An answer from its row. Raises KeyError, ValueError."""

    def number(key: str) -> float | None:
        return float(row[key]) if row[key] else None

    if row["verdict"] not in MARKS or row["verdict"] == DEPENDS:
        raise ValueError(row["verdict"])
    pairs = [pair.partition(":") for pair in row["seeds"].split()]
    values = {seed: value for seed, _, text in pairs if not math.isnan(value := float(text))}
    return Answer(check, row["verdict"], values, number("number"), number("low"), number("high"), number("level"),
                  row["remarks"], needs=row["needs"], seconds=number("seconds"))  # fmt: skip
