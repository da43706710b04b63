"""Some runs of a study: those with certain values, `norm=batch,layer batch_size=4`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from normbench.analysis.groups import MAIN, show
from normbench.runs import Run, Study

Filter = Mapping[str, Sequence[str]]  # {"norm": ("batch", "layer"), "batch_size": ("4",)}
SHOWN = 12  # values or keys that an error names


class ReportError(ValueError):
    """What was asked of a report can't be had; the message is for the user."""


def parse(words: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """["norm=batch,layer"] -> {"norm": ("batch", "layer")}. Commas inside brackets are part of a value."""
    only: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        if not (key and equals and values):
            hint = " The study comes before it." if "/" in word else ""
            raise ReportError(f"a filter is written key=value or key=value,value: got {word}.{hint}")
        only[key] = only.get(key, ()) + tuple(re.split(r",(?![^\[]*\])", values))
    return only


def format_filter(only: Filter) -> str:
    return " ".join(f"{key}={','.join(values)}" for key, values in only.items())


def select(study: Study, only: Filter) -> Study:
    """The runs that have one of the values for each key. A folder that can't be read stays: a report names those.

    Raises:
        ReportError: a key or a value that no run has, or no run that has them all.
    """
    if not only:
        return study
    found: list[tuple[Run, dict[str, Any]]] = []
    unreadable = []
    for run in study:
        try:
            found.append((run, run.values))
        except (OSError, ValueError):
            unreadable.append(run)
    if not found:
        return study  # whoever reads it says what is wrong
    for key, words in only.items():
        _check(key, words, [values for _, values in found], study.folder.name)
    kept = [run for run, values in found if has(values, only)]
    if not kept:
        raise ReportError(f"no run of {study.folder.name} has all of {format_filter(only)}. Ask for less at a time.")
    return Study(study.folder, tuple(sorted([*kept, *unreadable], key=lambda run: run.folder)))


def _check(key: str, words: Sequence[str], rows: Sequence[Mapping[str, Any]], study: str) -> None:
    """Every value that was asked for is there: a slip of the pen must not pass for a result that is missing."""
    there = {show(values[key]) for values in rows if key in values}
    if not there:
        known = list(dict.fromkeys(name for values in rows for name in values))
        near = difflib.get_close_matches(key, known, 1)  # the typing error first, then what sets runs apart
        options = [name for name in known if name.count(".") < 2 and not name.endswith(".name")]
        several = [name for name in options if len({repr(values[name]) for values in rows if name in values}) > 1]
        keys = dict.fromkeys([*near, "norm", *(name for name in MAIN if name in several), *several])
        raise ReportError(f"no run of {study} has an option {key}. What there is: {_format_list(list(keys))}.")
    for word in words:
        if not any(_same(text, word) for text in there):
            raise ReportError(
                f"no run of {study} has {key}={word}. There are: {_format_list(sorted(there, key=_order))}."
            )


def has(values: Mapping[str, Any], only: Filter) -> bool:
    """Whether, of each key, the value is one of those asked for."""
    return all(key in values and any(_same(show(values[key]), word) for word in only[key]) for key in only)


def _same(text: str, word: str) -> bool:
    """0.1 is 1e-1, and [300, 300] is [300,300]."""
    try:
        return float(text) == float(word)
    except ValueError:
        return text.replace(" ", "").casefold() == word.replace(" ", "").casefold()


def _order(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text


def _format_list(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
