"""A step of an explanation: one heading, one formula, one table. Text, worksheet and JSON are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Value = str | int | float
BLANK = "____"


@dataclass(frozen=True)
class Step:
    """One step of a calculation.

    Args:
        key: its name for programs.
        title: its heading.
        formula: in plain text; "" for none.
        words: what a student should see in the table. No number that the table asks for.
        columns, rows: the table.
        asked: the columns that are calculated in this step: a worksheet leaves them blank,
        given: but for these rows, which can't be calculated from what is shown.
    """

    key: str
    title: str
    formula: str
    words: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Value]]
    asked: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


def as_json(steps: Sequence[Step], facts: dict[str, Any]) -> dict[str, Any]:
    """Every number, unrounded."""
    return {**facts, "steps": [asdict(step) for step in steps]}


def text(value: Value) -> str:
    """A cell of a table: 4 decimals; of very small and large numbers, their digits that count."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.4g}" if abs(value) < 1 else f"{value:,.1f}"


def cells(step: Step, blank: bool) -> list[list[str]]:
    """The table as text, with blanks for what is asked."""
    asked = {i for i, column in enumerate(step.columns) if column in step.asked}
    return [
        [
            BLANK if blank and i in asked and row[0] not in step.given and isinstance(value, float) else text(value)
            for i, value in enumerate(row)
        ]
        for row in step.rows
    ]
