"""What the instruments measured: each table read once, and the setting that figures of a network's inside show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cell, Cells, Setting, label, order

if TYPE_CHECKING:
    import pandas as pd

SCHEMES = 8  # that a figure shows at most
Runs = dict[str, list[Entry]]  # scheme -> its complete runs that were measured, in the order of the legend

_TABLES: WeakKeyDictionary[Entry, dict[str, pd.DataFrame]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Chosen:
    """One setting of a study: `runs` of it, and a sentence for the caption that says which it is, and why."""

    setting: Setting
    runs: Runs
    words: str


def rows(entry: Entry, name: str, *numbers: str) -> pd.DataFrame:
    """The table of an instrument (or `steps`, `epochs`) with the columns `numbers` as finite numbers or NaN.

    Empty, but with these columns, where the file or one of them is missing. Figures share it: don't change it.
    """
    import pandas as pd

    tables = _TABLES.setdefault(entry, {})
    if name not in tables:
        tables[name] = entry.table(name)
    table = tables[name]
    if not set(numbers) <= set(table.columns):
        return pd.DataFrame(columns=list(dict.fromkeys(("step", "layer", "tensor", *numbers))))
    clean = {}
    for column in numbers:
        values = table[column].to_numpy()
        if values.dtype.kind not in "fi" or not np.isfinite(values).all():  # most are: spare them the copy
            known = pd.to_numeric(table[column], errors="coerce")
            clean[column] = known.where(np.isfinite(known))
    table = table.assign(**clean) if clean else table
    return table[table.step.notna()] if "step" in clean else table


def has_rows(entry: Entry, instrument: str, *columns: str) -> bool:
    """Whether a run is complete and its table has rows, and these columns; without reading all of it."""
    if entry.status != "complete":
        return False
    try:
        with (entry.run.folder / "measured" / f"{instrument}.csv").open("rb") as file:
            head, *rest = file.read(8192).split(b"\n")
    except OSError:
        return False
    return len(rest) > 1 and set(columns) <= set(head.decode(errors="replace").split(","))


def merit(by_scheme: dict[str, Cell]) -> float:
    """Mean over the schemes of their mean validation accuracy; a scheme without a result counts as 0."""
    found = []
    for cell in by_scheme.values():
        values = [e.summary.get("validation_accuracy") or 0.0 for e in cell.having("complete")]
        found.append(sum(values) / len(values) if values else 0.0)
    return sum(found) / max(1, len(found))


def best_settings(cells: Cells, settings: Iterable[Setting], count: int) -> list[Setting]:
    """The `count` of them with the greatest merit, in the order in which they come."""
    every = list(settings)
    ranked = sorted(every, key=lambda setting: -merit(cells.settings[setting]))[:count]
    return [setting for setting in every if setting in ranked]


def choose(cells: Cells, instrument: str, *columns: str) -> Chosen | None:
    """Of the settings where the most schemes were measured, the one of the greatest merit: networks that learn tell
    more than those at a learning rate that is too small or too large.
    """
    found = {setting: _measured(by_scheme, instrument, columns) for setting, by_scheme in cells.settings.items()}
    found = {setting: runs for setting, runs in found.items() if runs}
    if not found:
        return None
    setting = max(found, key=lambda s: (len(found[s]), merit(cells.settings[s])))
    runs = {scheme: found[setting][scheme] for scheme in order(found[setting])[:SCHEMES]}
    counts = ", ".join(f"{scheme} {len(entries)}" for scheme, entries in runs.items())
    words = f"Complete runs drawn: {counts}."
    if len(found) > 1:
        words += (
            f" Of {len(found)} settings with such measurements this is ({label(setting)}), where the schemes have"
            " the highest validation accuracy on average."
        )
    if len(found[setting]) > SCHEMES:
        words += f" Only {SCHEMES} of {len(found[setting])} schemes are drawn."
    return Chosen(setting, runs, words)


def by_batch_size(cells: Cells, instrument: str, *columns: str) -> tuple[Setting, dict[int, Runs]]:
    """Batch size -> runs, of the settings that differ in it alone: of those, where the most cells were measured."""
    found: dict[Setting, dict[int, Runs]] = defaultdict(dict)
    merits: dict[Setting, float] = defaultdict(float)
    for setting, by_scheme in cells.settings.items():
        if runs := _measured(by_scheme, instrument, columns):
            rest = without(setting, "batch_size")
            size = next(iter(runs.values()))[0].settings.get("batch_size")
            found[rest][int(size or 0)] = {scheme: runs[scheme] for scheme in order(runs)}
            merits[rest] += merit(by_scheme)
    if not found:
        return (), {}
    rest = max(found, key=lambda s: (sum(map(len, found[s].values())), merits[s]))
    return rest, dict(sorted(found[rest].items()))


def without(setting: Setting, *names: str) -> Setting:
    return tuple(item for item in setting if item[0] not in names)


def _measured(by_scheme: dict[str, Cell], instrument: str, columns: Sequence[str]) -> Runs:
    found = {s: [e for e in cell.entries if has_rows(e, instrument, *columns)] for s, cell in by_scheme.items()}
    return {scheme: entries for scheme, entries in found.items() if entries}
