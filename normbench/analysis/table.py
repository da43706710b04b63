"""A table of a report, as plain rows: what the page, the CSV and the Markdown file are made from."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def plainly(value: Any) -> str:
    return "–" if value is None else str(value)


@dataclass(frozen=True)
class Column:
    """A column that is shown: `show` turns `row[key]` into text; sorting goes by `row[sort or key]`."""

    key: str
    heading: str
    show: Callable[[Any], str] = plainly
    sort: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """`rows` hold every number at full precision, also those that no column shows: the CSV file has them all.

    Args:
        name: of its files.
        caption: what is in it, from how many runs, how to read it.
        rows: all with the same keys, in the same order. The page filters by `scheme`, `model` and `batch_size`,
            where there are such keys.
        note: why there is nothing in it; then `rows` is empty.
    """

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    def texts(self, row: Mapping[str, Any]) -> list[str]:
        return [column.show(row[column.key]) for column in self.columns]

    def to_csv(self) -> str:
        text = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        lines = [f"## {escape(self.title)}", "", escape(self.caption or self.note), ""]
        if self.rows:
            lines += [line([column.heading for column in self.columns])]
            lines += [line(["---:" if column.numeric else "---" for column in self.columns])]
            lines += [line(self.texts(row)) for row in self.rows]
        return "\n".join(lines) + "\n"


def line(values: Sequence[str]) -> str:
    return "| " + " | ".join(escape(value) for value in values) + " |"


def escape(text: str) -> str:
    """Names come from users: neither a column nor markup may come of them."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
