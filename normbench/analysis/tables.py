"""A table of a report, as plain rows: what the page, the CSV and the Markdown file are made from."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.analysis.groups import STATUSES, Group, Groups, Setting, show

NAMED = 3  # things that a sentence names


def show_or_dash(value: Any) -> str:
    return "–" if value is None else show(value)


@dataclass(frozen=True)
class Column:
    """A column that is shown: `show` turns `row[key]` into text; sorting goes by `row[sort or key]`."""

    key: str
    heading: str
    show: Callable[[Any], str] = lambda value: "–" if value is None else str(value)
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
            writer.writerows({key: _inert(value) for key, value in row.items()} for row in self.rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        lines = [f"## {escape(self.title)}", "", escape(self.caption or self.note), ""]
        return "\n".join([*lines, *(self.lines() if self.rows else [])]) + "\n"

    def lines(self) -> list[str]:
        """The table alone, in Markdown."""
        headings, marks = zip(*((c.heading, "---:" if c.numeric else "---") for c in self.columns), strict=True)
        return [line(headings), line(marks), *(line(self.texts(row)) for row in self.rows)]


def _inert(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula, behind an apostrophe; numbers stay numbers, such as -0.13."""
    if not isinstance(value, str) or not value.lstrip().startswith(("=", "+", "-", "@")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def read_rows(path: Path) -> list[dict[str, str]]:
    """What `Table.to_csv` has written, texts as they were. Raises OSError, ValueError, csv.Error."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: (cell or "").removeprefix("'") for key, cell in row.items()} for row in csv.DictReader(file)]


def line(values: Sequence[str]) -> str:
    return "| " + " | ".join(escape(value) for value in values) + " |"


def escape(text: str) -> str:
    """Names come from users: neither a column nor markup may come of them."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def number(pattern: str, factor: float = 1, never: str = "") -> Callable[[Any], str]:
    """A `show` for numbers: number("{:+.2f}", 100)(0.005) -> "+0.50"; a dash for None, `never` for infinity."""

    def text(value: Any) -> str:
        return "–" if value is None else never if never and value == math.inf else pattern.format(factor * value)

    return text


percent, points = number("{:.2f}", 100), number("{:+.2f}", 100)
SCHEME = Column("scheme", "scheme", numeric=False)
REMARKS = Column("remarks", "remarks", str, numeric=False)


def format_p(value: float | None, equals: str = "") -> str:
    """A p value: "0.012", "< 0.001"; a dash for None."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def format_list(words: Sequence[str]) -> str:
    """The first three of them, and how many more there are."""
    more = len(words) - NAMED
    return "; ".join(words[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def without_result(group: Group) -> list[str]:
    """What became of the runs that did not complete: ["1 diverged", "2 failed"]."""
    return [f"{n} {status}" for status in STATUSES[1:] if (n := group.count(status))]


def row_start(groups: Groups, scheme: str, setting: Setting) -> dict[str, Any]:
    """The start of a row: what the page filters by, then everything that varies."""
    return {"scheme": scheme} | setting_start(groups, setting)


def setting_start(groups: Groups, setting: Setting) -> dict[str, Any]:
    """The start of a row that is of no scheme."""
    return {key: value for key, value in groups.constant.items() if key in ("model", "batch_size")} | dict(setting)


def setting_columns(groups: Groups, *left_out: str) -> list[Column]:
    """A column for each setting that varies, headed as a person would say it."""
    columns = []
    for key in groups.varying:
        values = [dict(setting).get(key) for setting in groups.settings]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        heading = key.rpartition(".")[2].replace("_", " ")
        columns += [Column(key, heading, show_or_dash, numeric=numeric)] if key not in left_out else []
    return columns
