"""The leaderboard as text: CSV at full precision, Markdown, and a table for the terminal."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from normbench.report.cells import MAIN, label, show
from normbench.report.leaderboard import Leaderboard, Row
from normbench.report.table import escape, line
from normbench.report.wording import constants, heading, percent, synopsis

HEADINGS = ("norm", "test accuracy %", "n", "validation %", "train loss", "parameters", "training s", "remarks")

# Columns that a narrow terminal goes without, in this order. The files have them all.
_EXPENDABLE = ("parameters", "training s", "train loss", "validation %")


def texts(row: Row) -> tuple[str, ...]:
    """The cells of one row under `HEADINGS`."""
    return (
        row.cell.scheme,
        percent(row.test),
        f"{row.test.n if row.test else 0}/{len(row.cell.entries)}",
        percent(row.validation),
        f"{row.train_loss.mean:.4f}" if row.train_loss else "–",
        f"{row.parameters:,}" if row.parameters is not None else "–",
        f"{row.seconds.mean:.1f}" if row.seconds else "–",
        row.remarks,
    )


def to_csv(board: Leaderboard) -> str:
    """One line per row: its settings (even those that all rows share: a line stands alone), then every number."""
    cells = board.cells
    keys = [key for key in dict.fromkeys([*MAIN, *cells.varying]) if key in cells.constant or key in cells.varying]
    lines = []
    for row in board.rows:
        settings = cells.constant | dict(row.cell.setting)
        line: dict[str, Any] = {key: show(v) if (v := settings.get(key)) is not None else "" for key in keys}
        line["synthetic"] = any(entry.synthetic for entry in row.cell.entries)
        line |= {"norm": row.cell.scheme, "rank": row.rank, "runs": len(row.cell.entries)}
        line["seeds"] = " ".join(str(entry.seed) for entry in row.cell.entries)
        for name in ("test", "validation", "train_loss", "seconds"):
            numbers = (
                asdict(value)
                if (value := getattr(row, name))
                else dict.fromkeys(("n", "mean", "median", "low", "high"))
            )
            prefix = {"test": "test_accuracy", "validation": "validation_accuracy", "seconds": "training_seconds"}
            line |= {f"{prefix.get(name, name)}_{key}": number for key, number in numbers.items()}
        line |= {"parameters": row.parameters, **row.counts, "remarks": row.remarks}
        lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def to_markdown(board: Leaderboard) -> str:
    varying = board.cells.varying
    lines = [
        f"# {escape(board.cells.folder.name)}",
        "",
        "All runs: `" + constants(board.cells).replace("`", "'") + "`",
        "",
    ]
    lines += [line([*varying, *HEADINGS]), line(["---"] * (len(varying) + len(HEADINGS)))]
    for row in board.rows:
        lines.append(line([*_settings(row), *texts(row)]))
    lines += ["", *(f"- {escape(heading(board.cells, s))}: {escape(synopsis(r))}" for s, r in board.groups.items())]
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in board.notes)]) + "\n"


def print_leaderboard(board: Leaderboard, console: Console | None = None) -> None:
    """Print the table: drawn on a terminal, as plain aligned lines elsewhere (wider than 80 columns if it must be)."""
    console = console or Console()
    headings = [key.rpartition(".")[2] for key in board.cells.varying] + list(HEADINGS)
    groups = [[_settings(row) + list(texts(row)) for row in rows] for rows in board.groups.values()]
    lines = [headings, *(line for group in groups for line in group)]
    width = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    if console.is_terminal:
        kept = list(range(len(headings) - 1))  # remarks are sentences: below
        for name in _EXPENDABLE:
            if sum(width[i] + 3 for i in kept) + 1 > console.width:
                kept.remove(headings.index(name))
        table = Table(title=Text(board.cells.folder.name), title_justify="left")
        for i in kept:
            words = headings[i] in ("norm", "model", "dataset", "optimizer")
            table.add_column(headings[i], justify="left" if words else "right", no_wrap=True)
        for group in groups:
            for line in group:
                table.add_row(*(Text(line[i]) for i in kept))
            table.add_section()
        console.print(table)
        for row in board.rows:
            if row.remarks:
                name = ", ".join(filter(None, (row.cell.scheme, label(row.cell.setting, ""))))
                _plain(console, f"{name}: {row.remarks}")
    else:
        for text_line in lines:
            _plain(console, "  ".join(text.ljust(w) for text, w in zip(text_line, width, strict=True)).rstrip())
    _plain(console, f"All runs: {constants(board.cells)}")
    for note in board.notes:
        _plain(console, note)


def _settings(row: Row) -> list[str]:
    return [show(value) if value is not None else "" for _, value in row.cell.setting]


def _plain(console: Console, text: str) -> None:
    """Print as it is: no markup in the names of schemes, no colours, and wrapped by the terminal alone."""
    console.print(Text(text), soft_wrap=True)
