"""One row per run: what sets it apart, what became of it, and the command that repeats it."""

from __future__ import annotations

from typing import Any

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cells, show
from normbench.analysis.reproduce import command
from normbench.analysis.table import Column, Table
from normbench.plots.drawing import plural


def every_run(cells: Cells) -> Table:
    varying = [Column(key, key.replace("_", " "), _value) for key in cells.varying]
    columns = [
        Column("scheme", "norm", numeric=False),
        *varying,
        Column("seed", "seed"),
        Column("status", "status", numeric=False),
        Column("test_accuracy", "test accuracy %", _percent),
        Column("steps", "steps", _count),
        Column("seconds", "seconds", _seconds),
        Column("command", "command", numeric=False),
    ]
    caption = f"{plural(len(cells.entries), 'run')}. Seconds: training, evaluating and measuring together."
    return Table("runs", "Every run", caption, columns, [_row(entry, cells) for entry in cells.entries])


def _row(entry: Entry, cells: Cells) -> dict[str, Any]:
    summary = entry.summary
    keys = dict.fromkeys(("model", "batch_size", *cells.varying))  # the first two: what the page filters by
    return {
        "run": entry.name,
        "scheme": entry.scheme,
        **{key: entry.settings.get(key) for key in keys},
        "seed": entry.seed,
        "status": f"{entry.status}, at chance" if summary.get("at_chance") else entry.status,
        "reason": entry.reason,
        "test_accuracy": summary.get("test_accuracy"),
        "steps": summary.get("steps"),
        "seconds": (summary.get("seconds") or {}).get("total"),
        "command": command(entry),
    }


def _value(value: Any) -> str:
    return "–" if value is None else show(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
