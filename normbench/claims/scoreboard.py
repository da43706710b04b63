"""How claims stand: every statement with its verdict so far, listed, and as files in results/claims/report."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.analysis.tables import Column, Table, number, read_rows
from normbench.claims import tables
from normbench.claims.claim import STATEMENTS, Claim
from normbench.claims.verdicts import MARKS, Calculated, judge
from normbench.config.options import config_dir
from normbench.files import read_bytes, write_atomically

OUT_OF_DATE = "out of date"  # the claim's file has changed since the report was built
RECORD = "record.json"  # {"calculations": {name: {"numbers", "seconds", "machine"}}, "studies": {name: {...}}}
NAME, TITLE = "scoreboard", "Claims and what our runs say"


def folder(results: Path) -> Path:
    return results / "claims" / "report"


def record(results: Path) -> dict[str, dict[str, Any]]:
    """What `normbench claims --run` has calculated and timed so far; nothing where the file is missing or damaged."""
    try:
        known = json.loads(read_bytes(folder(results) / RECORD))
        return {part: dict(known.get(part, {})) for part in ("calculations", "studies")}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {"calculations": {}, "studies": {}}


def write_record(results: Path, known: Mapping[str, Any]) -> None:
    """Raises OSError."""
    folder(results).mkdir(parents=True, exist_ok=True)
    write_atomically(folder(results) / RECORD, (json.dumps(known, indent=1) + "\n").encode())


def calculated(results: Path) -> Calculated:
    """The numbers of calculations that were made so far."""
    return {name: dict(made.get("numbers") or {}) for name, made in record(results)["calculations"].items()}


def command(claim: Claim) -> str:
    return f"normbench run experiment={claim.study}" if claim.study else f"normbench claims --run {claim.id}"


def minutes(claim: Claim) -> str:
    """What the experiment's file says that it takes, "15"; "" where it does not."""
    if not claim.study:
        return "< 1"
    path = config_dir() / "experiment" / f"{claim.study}.yaml"
    said = (
        [line for line in path.read_text(encoding="utf-8").splitlines()[:4] if line.startswith("#")]
        if path.is_file()
        else []
    )
    found = re.search(r"([\d.]+) min", " ".join(said))
    return found[1] if found else ""


def status_of(claims: Iterable[Claim], results: Path) -> list[dict[str, Any]]:
    """A row for each statement: its verdict so far ("" for none), and the check that leads it."""
    known, read = record(results), {}
    rows: list[dict[str, Any]] = []
    for claim in claims:
        if claim.study not in read:
            where = (results / claim.study / "report" if claim.study else folder(results)) / "tables"
            read[claim.study] = (_read(where / "claims.csv"), _read(where / "claim_checks.csv"))
        answers, checks = read[claim.study]
        parts = [known["studies"].get(claim.study), *(known["calculations"].get(name) for name in claim.calculations)]
        made = [part for part in parts if isinstance(part, dict)]
        for key, sentence in claim.statements.items():
            name = STATEMENTS[key]
            answer = _first(answers, claim.id, "statement", name)
            leading = _first(checks, claim.id, "answers", name)
            fresh = answer.get("digest") == claim.digest
            rows.append({
                "claim": claim.id, "statement": name, "sentence": sentence,
                "verdict": answer.get("verdict", "") if fresh else OUT_OF_DATE if answer else "",
                "checks": answer.get("checks", "") if fresh else "",
                **{part: leading.get(part, "") if fresh else "" for part in ("check", "measured", "expected")},
                "command": command(claim), "minutes": minutes(claim),
                "wall_seconds": sum(float(part.get("seconds", 0)) for part in made) if made else None,
                "machine": next((str(part["machine"]) for part in made if part.get("machine")), ""),
                "figure": f"results/{claim.study}/report/figures/{claim.figure}.png" if claim.figure else "",
                "source": claim.source,
            })  # fmt: skip
    return rows


def _first(rows: Sequence[Mapping[str, str]], claim: str, column: str, name: str) -> Mapping[str, str]:
    found = (row for row in rows if row.get("claim") == claim and name in (row.get(column) or "").split(", "))
    return next(found, {})


def _read(path: Path) -> list[dict[str, str]]:
    try:
        return read_rows(path)
    except (OSError, ValueError, csv.Error):
        return []


def write(claims: Sequence[Claim], results: Path) -> None:
    """Write the scoreboard, and the answers of claims of calculations alone beside it. Raises OSError."""
    here = folder(results)
    here.mkdir(parents=True, exist_ok=True)
    alone = [judge(claim, None, calculated(results)) for claim in claims if not claim.study]
    if alone:
        (here / "tables").mkdir(exist_ok=True)
        for made in (tables.statements(alone), tables.checks(alone)):
            write_atomically(here / "tables" / f"{made.name}.csv", made.to_csv().encode())
    rows = status_of(claims, results)
    shown = table(rows)
    write_atomically(here / f"{NAME}.csv", shown.to_csv().encode())
    write_atomically(here / f"{NAME}.md", shown.to_markdown().encode())


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    found = Counter(row["verdict"] or "not run" for row in rows)
    counts = [f"{found[word]} {word}" for word in (*MARKS, OUT_OF_DATE, "not run") if found[word]]
    machines = dict.fromkeys(row["machine"] for row in rows if row["machine"])
    caption = (
        f"{len(rows)} statements: {', '.join(counts)}. Beside each the first of its checks: number, interval, and what "
        "the claim expects; the report of its study has them all. Minutes: wall time of its study with its report, all "
        f"calls together. Machine: {'; '.join(machines) or 'not known'}."
    )
    headings = {"claim": "claim", "statement": "", "sentence": "statement", "verdict": "verdict", "checks": "checks",
                "check": "first check", "measured": "number", "expected": "expected", "wall_seconds": "min",
                "command": "command", "figure": "figure", "source": "source"}  # fmt: skip
    special = {"verdict": lambda value: value or "not run", "command": "`{}`".format}
    columns = [Column(key, words, special.get(key, str), numeric=False) for key, words in headings.items()]
    columns[8] = Column("wall_seconds", "min", number("{:.1f}", 1 / 60))
    return Table(NAME, TITLE, caption, columns, rows)
