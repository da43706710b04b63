"""Tables as the page shows them: texts, with what to sort by beside, and what to filter by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normbench.analysis import best_lr
from normbench.analysis.best_lr import choices, several
from normbench.analysis.groups import STATUSES, Group, Groups, label, order, show
from normbench.analysis.leaderboard import Leaderboard, Row, format_accuracy, synopsis
from normbench.analysis.notes import heading
from normbench.analysis.statistics import estimate_accuracy
from normbench.analysis.tables import Column, Table

FILTERS = {"scheme": "Only these schemes", "model": "Only these models", "batch_size": "Only batch size"}
GLANCE = 8  # settings that fit beside one another
LONG = 40  # signs; longer words are wrapped


@dataclass(frozen=True)
class Item:
    """One cell: `sort` is "" where the text itself is what to sort by; `kind` is "", "words", "left" or "code"."""

    text: str
    sort: str = ""
    kind: str = ""


def filters(groups: Groups) -> list[tuple[str, str, list[str]]]:
    """What there is to choose between: (key, legend, values), without keys that have one value only."""
    values = {key: {show(v) for e in groups.members if (v := e.values.get(key)) is not None} for key in FILTERS}
    found = {**{key: sorted(values[key], key=_size) for key in FILTERS}, "scheme": order(groups.schemes)}
    return [(key, legend, found[key]) for key, legend in FILTERS.items() if len(found[key]) > 1]


def rows(table: Table) -> list[tuple[dict[str, str], list[Item]]]:
    """Each row's filter attributes and cells."""
    drawn = [(row, table.texts(row)) for row in table.rows]
    wide = [max((len(found[i]) for _, found in drawn), default=0) > LONG for i in range(len(table.columns))]
    return [
        (keys(row), [_item(*each, row) for each in zip(table.columns, found, wide, strict=True)])
        for row, found in drawn
    ]


def keys(row: Mapping[str, Any]) -> dict[str, str]:
    """What a row is filtered by; without a key that it does not have, or that has no value in it."""
    return {key: show(row[key]) for key in FILTERS if row.get(key) is not None}


def _item(column: Column, text: str, wide: bool, row: Mapping[str, Any]) -> Item:
    sort = sortable(row[column.sort or column.key])
    kind = "code" if column.key == "command" else "" if column.numeric else "words" if wide else "left"
    return Item(text, sort if sort != text else "", kind)


def sortable(value: Any) -> str:
    """A value as the page's script reads it: numbers as numbers, infinity too; – where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return str(value)


def by_setting(board: Leaderboard) -> list[dict[str, Any]]:
    """The leaderboard: per setting a heading, a sentence, and rows with a mark of mean and interval each."""
    return [
        {
            "heading": heading(board.study, setting),
            "synopsis": synopsis(found),
            "rows": [(*row, mark) for row, mark in zip(rows(_short(board, found)), _marks(found), strict=True)],
        }
        for setting, found in board.groups.items()
    ]


def _short(board: Leaderboard, found: Sequence[Row]) -> Table:
    return Table("", "", "", board.short, found)


def _marks(found: Sequence[Row]) -> list[dict[str, float] | None]:
    """Where each mean and interval lies on a line of 0 to 100 that spans the group's means with some room."""
    means = [row["test_accuracy_mean"] for row in found if row["test_accuracy_n"]]
    if not means:
        return [None] * len(found)
    room = max(0.3 * (max(means) - min(means)), 0.002)
    low, high = min(means) - room, max(means) + room

    def place(value: float) -> float:
        return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 1)

    marks: list[dict[str, float] | None] = []
    for row in found:
        mean = row["test_accuracy_mean"]
        ends = {end: row[f"test_accuracy_{end}"] for end in ("low", "high")}
        places = {"mean": mean} | {end: mean if value is None else value for end, value in ends.items()}
        marks.append(None if mean is None else {key: place(value) for key, value in places.items()})
    return marks


def glance(groups: Groups) -> dict[str, Any] | None:
    """Test accuracies, schemes down and settings across: only where there are several of both and they fit.

    Each scheme at its own best lr where several lrs and something else were swept, otherwise at every lr.
    """
    chosen = choices(groups)
    shown, how = best_lr.cells(groups) if several(chosen) and len(chosen) > 1 else (groups.settings, "")
    if not 1 < len(shown) <= GLANCE or len(groups.schemes) < 2:
        return None
    lines = [(scheme, [_accuracy(of.get(scheme)) for of in shown.values()]) for scheme in groups.schemes]
    return {"columns": [label(setting) for setting in shown], "lines": lines, "how": how}


def _accuracy(group: Group | None) -> Item:
    if group is None:
        return Item("")
    if not (found := estimate_accuracy(list(group.accuracies().values()))):
        return Item(next(status for status in STATUSES if group.count(status)), "–")
    if group.count("diverged") == found.n:
        return Item("diverged", str(found.mean))
    return Item(format_accuracy(found).removesuffix(" (n = 1)"), str(found.mean))


def troubles(groups: Groups) -> Table:
    """Runs without a result, each with the reason in its own words."""
    columns = [
        Column("scheme", "norm", numeric=False),
        Column("setting", "setting", numeric=False),
        Column("seed", "seed"),
        Column("status", "status", numeric=False),
        Column("reason", "message", numeric=False),
        Column("run", "folder", numeric=False),
    ]
    found = [run for run in groups.members if run.status != "complete"]
    lines = [
        {
            **{key: run.values.get(key) for key in FILTERS},
            "scheme": groups.scheme_of(run),
            "setting": label(tuple((key, run.values.get(key)) for key in groups.varying), ""),
            "seed": run.seed,
            "status": run.status,
            "reason": run.reason,
            "run": run.name,
        }
        for run in found
    ]
    return Table("troubles", "Runs without a result", "", columns, lines)


def _size(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return math.inf, text
