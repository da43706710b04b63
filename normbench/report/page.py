"""One self-contained HTML page: what was asked, the numbers, the pictures, what went wrong, how to repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from normbench.report.cells import Cells, label, show
from normbench.report.drawing import Figure, plural
from normbench.report.leaderboard import Leaderboard, Row
from normbench.report.palette import palette
from normbench.report.reproduce import commands
from normbench.report.tables import HEADINGS, texts
from normbench.report.wording import constants, heading, percent, synopsis

GLANCE = 8  # settings that fit beside one another


def render(board: Leaderboard, figures: Sequence[Figure]) -> str:
    """The page. All of it comes from the runs' files, without the time of building: the same runs, the same bytes."""
    cells = board.cells
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["drawn"] = lambda svg: Markup(svg.decode())  # letters are outlines: no text of a user's in it
    return environment.get_template("page.html").render(
        study=cells.folder.name,
        question=next((q for e in cells.entries if (q := e.run.config.get("question"))), ""),
        counts=_counts(cells),
        synthetic=", synthetic data" if cells.synthetic and "dataset" not in cells.varying else "",
        shared=constants(cells),
        constant={key: show(value) for key, value in cells.constant.items()},
        notes=board.notes,
        colors={name: style.color.replace("#000000", "currentColor") for name, style in palette(cells.schemes).items()},
        headings=HEADINGS if any(row.remarks for row in board.rows) else HEADINGS[:-1],
        groups=[
            {
                "heading": heading(cells, setting),
                "synopsis": synopsis(rows),
                "rows": [(row.cell.scheme, texts(row), mark) for row, mark in zip(rows, _marks(rows), strict=True)],
            }
            for setting, rows in board.groups.items()
        ],
        glance=_glance(board),
        figures=figures,
        troubles=[
            (
                e.name,
                e.scheme,
                label(tuple((k, e.settings.get(k)) for k in cells.varying), ""),
                e.seed,
                e.status,
                e.reason,
            )
            for e in cells.entries
            if e.status != "complete"
        ],
        facts=_facts(cells),
        commands=commands(cells),
    )


def _counts(cells: Cells) -> str:
    statuses = [entry.status for entry in cells.entries]
    words = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses)))
    parts = [
        plural(len(statuses), "run") + ": " + plural(len(cells.schemes), "scheme"),
        plural(len(cells.settings), "setting"),
        plural(len({entry.seed for entry in cells.entries}), "seed"),
    ]
    return f"{', '.join(parts)}. {words}."


def _glance(board: Leaderboard) -> dict[str, Any] | None:
    """Schemes down, settings across: only where there are several of both and they fit."""
    settings = list(board.groups)
    if not 1 < len(settings) <= GLANCE or len(board.cells.schemes) < 2:
        return None
    found = {(row.cell.scheme, row.cell.setting): row for row in board.rows}

    def word(row: Row | None) -> str:
        if row is None or row.test:
            return percent(row.test).removesuffix(" (n = 1)") if row else ""
        return next((status for status, count in row.counts.items() if count), "–")

    lines = [(scheme, [word(found.get((scheme, setting))) for setting in settings]) for scheme in board.cells.schemes]
    return {"columns": [heading(board.cells, setting) for setting in settings], "lines": lines}


def _marks(rows: Sequence[Row]) -> list[dict[str, float] | None]:
    """Where each mean and interval lies on a line of 0 to 100 that spans the group's means with some room."""
    means = [row.test.mean for row in rows if row.test]
    if not means:
        return [None] * len(rows)
    room = max(0.3 * (max(means) - min(means)), 0.002)
    low, high = min(means) - room, max(means) + room

    def place(value: float) -> float:
        return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 1)

    marks: list[dict[str, float] | None] = []
    for row in rows:
        if row.test is None:
            marks.append(None)
            continue
        left, right = (row.test.mean if end is None else end for end in (row.test.low, row.test.high))
        marks.append({"mean": place(row.test.mean), "low": place(left), "high": place(right)})
    return marks


def _facts(cells: Cells) -> list[tuple[str, str]]:
    """Where the runs come from; several values are listed where the runs differ."""
    records = [entry.run.record for entry in cells.entries]
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in (record.get("versions") or {}).items():
            versions.setdefault(str(name), set()).add(str(version))
    data = [entry.summary.get("dataset") or {} for entry in cells.entries]
    seconds = [(entry.summary.get("seconds") or {}).get("total") or 0.0 for entry in cells.entries]
    times = [
        file.stat().st_mtime
        for e in cells.entries
        for n in ("config.yaml", "summary.json")
        if (file := e.run.folder / n).exists()
    ]
    days = sorted({datetime.fromtimestamp(time, UTC).date().isoformat() for time in times})
    machines = {", ".join(f"{k} {v}" for k, v in (record.get("machine") or {}).items()) for record in records}
    sets = {
        f"{d.get('name')}: {d.get('train')} train, {d.get('validation')} validation, {d.get('test')} test images, "
        f"sha256 {str(d.get('checksum'))[:12]}{', SYNTHETIC' if d.get('synthetic') else ''}"
        for d in data
        if d
    }
    facts = [
        ("Data", " / ".join(sorted(sets))),
        ("Seeds", ", ".join(map(str, sorted({entry.seed for entry in cells.entries}, key=str)))),
        ("Versions", ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in versions.items())),
        ("Commit", " / ".join(sorted({str(record.get("git_commit") or "unknown") for record in records}))),
        ("Machine", " / ".join(sorted(machines))),
        ("Wall time", f"{sum(seconds):,.0f} s over all runs that are over, added up"),
        ("Files dated", " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""),
    ]
    return [(name, value) for name, value in facts if value]
