"""The leaderboard as text: CSV at full precision, Markdown, and a table for the terminal."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from normbench.analysis.columns import REMARKS, SCHEME, number, setting_columns
from normbench.analysis.columns import percent as percent_of
from normbench.analysis.differences import differences
from normbench.analysis.groups import MAIN, is_synthetic, label, show
from normbench.analysis.leaderboard import Leaderboard, Row
from normbench.analysis.statistics import Estimate
from normbench.analysis.table import Column, Table, escape, line
from normbench.analysis.wording import constants, heading, percent, synopsis

HEADINGS = ("norm", "test accuracy %", "n", "validation %", "train loss", "parameters", "training s", "remarks")

# Columns that a narrow terminal goes without, in this order. The files have them all.
_EXPENDABLE = ("parameters", "training s", "train loss", "validation %")

_ESTIMATES = {"test_accuracy": "test", "validation_accuracy": "validation", "train_loss": "train_loss"}
_ESTIMATES |= {"training_seconds": "seconds"}  # prefix of the columns -> name in Row


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


def leaderboard_table(board: Leaderboard) -> Table:
    """One row per cell: its settings (even those that all rows share: a line stands alone), then every number."""
    cells = board.cells
    keys = [key for key in dict.fromkeys([*MAIN, *cells.varying]) if key in cells.constant or key in cells.varying]
    rows = []
    for row in board.rows:
        settings = cells.constant | dict(row.cell.setting)
        line: dict[str, Any] = {"scheme": row.cell.scheme} | {key: settings.get(key) for key in keys}
        line["synthetic"] = any(map(is_synthetic, row.cell.members))
        line |= {"rank": row.rank, "runs": len(row.cell.entries)}
        line["seeds"] = " ".join(str(entry.seed) for entry in row.cell.entries)
        for name, value in _ESTIMATES.items():
            found = getattr(row, value)
            line |= {f"{name}_{field.name}": getattr(found, field.name, None) for field in fields(Estimate)}
        rows.append(line | {"parameters": row.parameters, **row.counts, "remarks": row.remarks})
    caption = (
        f"From {len(cells.entries)} runs, one row per scheme and setting, best mean first within a setting. "
        "Means over the n seeds that finished, with the 95% Student t interval of the test accuracy: new seeds on this "
        "test set, not new images. IQM: interquartile mean, without the lowest and highest quarter (floor(n / 4) runs "
        "at either end). What became of the other runs is counted beside; at chance counts runs that finished."
    )
    columns = [
        SCHEME,
        *setting_columns(cells),
        Column("test_accuracy_mean", "test accuracy %", percent_of),
        Column("test_accuracy_low", "95% from", percent_of),
        Column("test_accuracy_high", "to", percent_of),
        Column("test_accuracy_median", "median", percent_of),
        Column("test_accuracy_iqm", "IQM", percent_of),
        Column("complete", "n"),
        Column("validation_accuracy_mean", "validation %", percent_of),
        Column("train_loss_mean", "train loss", number("{:.4f}")),
        Column("parameters", "parameters", number("{:,}")),
        Column("training_seconds_mean", "training s", number("{:.1f}")),
        *(Column(status, status.replace("_", " ")) for status in ("diverged", "at_chance", "failed", "unsupported")),
        REMARKS,
    ]
    return Table("leaderboard", "Leaderboard", caption, columns, rows)


def to_csv(board: Leaderboard) -> str:
    return leaderboard_table(board).to_csv()


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
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in _said(board))]) + "\n"


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
        table = Drawn(title=Text(board.cells.folder.name), title_justify="left")
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
    for note in _said(board):
        _plain(console, note)


def _said(board: Leaderboard) -> list[str]:
    return [*board.notes, *differences(board.cells)]


def _settings(row: Row) -> list[str]:
    return [show(value) if value is not None else "" for _, value in row.cell.setting]


def _plain(console: Console, text: str) -> None:
    """Print as it is: no markup in the names of schemes, no colours, and wrapped by the terminal alone."""
    console.print(Text(text), soft_wrap=True)
