"""What the instruments measured: each table read once, and the setting that figures of a network's inside show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normbench.analysis.groups import Group, Groups, Setting, label, order, without
from normbench.files import open_file
from normbench.runs import Run

if TYPE_CHECKING:
    import pandas as pd

SCHEMES = 8  # that a figure shows at most
Runs = dict[str, list[Run]]  # scheme -> its complete runs that were measured, in the order of the legend


@dataclass(frozen=True)
class Chosen:
    """One setting of a study: `runs` of it, and a sentence for the caption that says which it is, and why."""

    setting: Setting
    runs: Runs
    words: str


def rows(run: Run, name: str, *numbers: str) -> pd.DataFrame:
    """The table of an instrument (or `steps`, `epochs`) with the columns `numbers` as finite numbers or NaN.

    Empty, but with these columns, where the file or one of them is missing or damaged. It is read once and shared:
    don't change it.
    """
    import pandas as pd

    if name not in run.tables:
        try:
            run.tables[name] = run.table(name if name in ("steps", "epochs") else f"measured/{name}")
        except (OSError, ValueError):  # pandas' own errors on unreadable text are ValueErrors
            run.tables[name] = pd.DataFrame()
    table = run.tables[name]
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


def has_rows(run: Run, instrument: str, *columns: str) -> bool:
    """Whether a run is complete and its table has rows, and these columns; without reading all of it."""
    if run.status != "complete":
        return False
    try:
        with open_file(run.folder / "measured" / f"{instrument}.csv") as file:
            head, *rest = file.read(8192).split(b"\n")
    except OSError:
        return False
    return len(rest) > 1 and set(columns) <= set(head.decode(errors="replace").split(","))


def mean_validation_accuracy(by_scheme: Mapping[str, Group]) -> float:
    """Mean over the schemes of their mean validation accuracy; a scheme without a result counts as 0."""
    means = [group.numbers("validation_accuracy") for group in by_scheme.values()]
    return sum(float(values.mean()) if len(values) else 0.0 for values in means) / max(1, len(means))


def best_settings(groups: Groups, settings: Iterable[Setting], count: int) -> list[Setting]:
    """The `count` of them with the highest mean validation accuracy, in the order in which they come."""
    every = list(settings)
    ranked = sorted(every, key=lambda setting: -mean_validation_accuracy(groups.settings[setting]))[:count]
    return [setting for setting in every if setting in ranked]


def choose(groups: Groups, instrument: str, *columns: str) -> Chosen | None:
    """Of the settings where the most schemes were measured, the one with the highest mean validation accuracy: networks
    that learn show more than those at a learning rate that is too small or too large.
    """
    found = {setting: _measured(by_scheme, instrument, columns) for setting, by_scheme in groups.settings.items()}
    found = {setting: runs for setting, runs in found.items() if runs}
    if not found:
        return None
    setting = max(found, key=lambda s: (len(found[s]), mean_validation_accuracy(groups.settings[s])))
    runs = {scheme: found[setting][scheme] for scheme in order(found[setting])[:SCHEMES]}
    counts = ", ".join(f"{scheme} {len(members)}" for scheme, members in runs.items())
    words = f"Complete runs drawn: {counts}."
    if len(found) > 1:
        words += (
            f" Of {len(found)} settings with such measurements this is ({label(setting)}), where the schemes have"
            " the highest validation accuracy on average."
        )
    if len(found[setting]) > SCHEMES:
        words += f" Only {SCHEMES} of {len(found[setting])} schemes are drawn."
    return Chosen(setting, runs, words)


def by_batch_size(groups: Groups, instrument: str, *columns: str) -> tuple[Setting, dict[int, Runs]]:
    """Batch size -> runs, of the settings that differ in it alone: of those, where the most groups were measured."""
    found: dict[Setting, dict[int, Runs]] = defaultdict(dict)
    accuracy: dict[Setting, float] = defaultdict(float)
    for setting, by_scheme in groups.settings.items():
        if runs := _measured(by_scheme, instrument, columns):
            rest = without(setting, "batch_size")
            size = next(iter(runs.values()))[0].values.get("batch_size")
            found[rest][int(size or 0)] = {scheme: runs[scheme] for scheme in order(runs)}
            accuracy[rest] += mean_validation_accuracy(by_scheme)
    if not found:
        return (), {}
    rest = max(found, key=lambda s: (sum(map(len, found[s].values())), accuracy[s]))
    return rest, dict(sorted(found[rest].items()))


def _measured(by_scheme: Mapping[str, Group], instrument: str, columns: Sequence[str]) -> Runs:
    found = {s: [run for run in group.members if has_rows(run, instrument, *columns)] for s, group in by_scheme.items()}
    return {scheme: runs for scheme, runs in found.items() if runs}
