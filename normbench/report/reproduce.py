"""The commands that repeat a study."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from normbench.report.cells import Cells
from normbench.report.entries import Entry
from normbench.runs.study import flat


def command(entry: Entry) -> str:
    """The shortest command that repeats one run, into a study of the same name."""
    return shlex.join(["normbench", "run", *_overrides(entry)])


def commands(cells: Cells) -> list[str]:
    """One `normbench run -m` where the runs are a full crossing, otherwise a command for each of them."""
    crossing = _crossing(cells)
    return [crossing] if crossing else [command(entry) for entry in cells.entries]


def _overrides(entry: Entry) -> list[str]:
    words = [str(word) for word in entry.run.record.get("overrides") or []]
    study = entry.run.config.get("study")
    return words if not study or any(word.startswith("study=") for word in words) else [*words, f"study={study}"]


def _crossing(cells: Cells) -> str | None:
    """Every key takes each of its values with each of all others: the product of their numbers is that of the runs."""
    if not all("=" in word for entry in cells.entries for word in _overrides(entry)):
        return None  # ~key, which takes an option away
    rows = [dict(word.partition("=")[::2] for word in _overrides(entry)) for entry in cells.entries]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for row, entry in zip(rows, cells.entries, strict=True):
        values = flat(entry.run.config) | entry.run.choices
        for key in keys:
            if key not in row and key not in values:
                return None  # such as a key that only some models have
            row[key] = row.get(key, _word(values.get(key)))
    options = {key: list(dict.fromkeys(row[key] for row in rows)) for key in keys}
    distinct = {tuple(row[key] for key in keys) for row in rows}
    if len(rows) < 2 or len(distinct) != len(rows) or math.prod(map(len, options.values())) != len(rows):
        return None
    return shlex.join(["normbench", "run", "-m", *(f"{key}={','.join(values)}" for key, values in options.items())])


def _word(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value).replace(", ", ",")
    )


def again(entries: Sequence[Entry], **axes: Sequence[Any]) -> str:
    """The command that repeats runs with other values: again([a, b], seed=[5, 6]) for both configurations and seeds.

    One `normbench run -m` where the configurations differ in the value of one key, otherwise one each, joined by &&.
    """
    lines: list[list[str]] = []
    for entry in entries:
        words = [word for word in _overrides(entry) if word.partition("=")[0] not in axes]
        lines += [words] if words not in lines else []
    if len({len(words) for words in lines}) == 1:
        options = [list(dict.fromkeys(column)) for column in zip(*lines, strict=True)]
        several = [words for words in options if len(words) > 1]
        if len(several) == 1 and len({word.partition("=")[0] for word in several[0]}) == 1:
            key = several[0][0].partition("=")[0]
            joined = f"{key}={','.join(word.partition('=')[2] for word in several[0])}"
            lines = [[joined if words is several[0] else words[0] for words in options]]
    added = [f"{key}={_sweep(values)}" for key, values in axes.items()]
    return " && ".join(shlex.join(["normbench", "run", "-m", *words, *added]) for words in lines)


def _sweep(values: Sequence[Any]) -> str:
    """5,6,7 or, where it is long and unbroken, range(5,17)."""
    if len(values) > 8 and list(values) == list(range(values[0], values[0] + len(values))):
        return f"range({values[0]},{values[-1] + 1})"
    return ",".join(map(_word, values))
