"""The leaderboard in words: numbers as text, what a table shows, what a reader has to know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from normbench.analysis.groups import MAIN, Cells, Setting, is_synthetic, label, show
from normbench.analysis.statistics import Estimate

if TYPE_CHECKING:
    from normbench.analysis.leaderboard import Row

SYNTHETIC = "SYNTHETIC DATA (made from random numbers, for trying the bench): says nothing about real images."


def percent(value: Estimate | None) -> str:
    """An accuracy as "95.10 ± 0.21"; without an interval it says so."""
    if value is None:
        return "–"
    half = value.half_width
    return f"{100 * value.mean:.2f} ± {100 * half:.2f}" if half is not None else f"{100 * value.mean:.2f} (n = 1)"


def synopsis(rows: Sequence[Row]) -> str:
    """What one group of rows shows, and no more: the highest mean, and whose intervals meet its own."""
    known = [row for row in rows if row.test]
    if not known:
        return "No run has finished with a result."
    best = known[0]
    words = f"Highest mean: {best.cell.scheme}, {percent(best.test)}"
    if len(known) == 1:
        return f"{words}, the only scheme with a result."
    meets = {row.cell.scheme: best.test.overlaps(row.test) for row in known[1:] if best.test and row.test}
    alone = [row.cell.scheme for row in known if row.test and row.test.low is None]
    overlapping = [name for name, meet in meets.items() if meet]
    if best.test and best.test.low is None:
        return f"{words}: one seed, so no interval, and no telling a difference between schemes from one between seeds."
    words += f"; its interval overlaps {'those of ' + _and(overlapping) if overlapping else 'none of the others'}."
    return f"{words} One seed and no interval: {_and(alone)}." if alone else words


def notes(cells: Cells, rows: Sequence[Row]) -> list[str]:
    """What a reader has to know beside the numbers; shown with every form of the table."""
    words = []
    if cells.synthetic:
        words.append(SYNTHETIC)
    words.append(
        "± is half the 95% Student t interval of the mean over n seeds: new seeds on this test set, not new images."
    )
    if any(row.test and row.test.n == 1 for row in rows):
        words.append("n = 1: one seed gives no interval.")
    if any(row.test and row.test.n < len(row.cell.entries) for row in rows):
        words.append("Means are over the runs that finished; n and the remarks say what became of the others.")
    if len(rows) > 1:
        words.append(
            "Rows are in order of their mean within a setting. Overlapping intervals are no proof of equality."
        )
    if cells.repeated:
        words.append(f"Left out, because another run has the same configuration and seed: {', '.join(cells.repeated)}.")
    words += [f"Not read: {name} ({why})." for name, why in cells.foreign.items()]
    return words


def constants(cells: Cells) -> str:
    """The main settings that all runs share, in one line: "model=mlp dataset=mnist lr=0.001 ..."."""
    shared = cells.constant
    idle = {"momentum"} if shared.get("optimizer") not in ("momentum", "nesterov") else set()
    idle |= {"decay_norm_parameters"} if not shared.get("weight_decay") else set()
    usual = {"schedule": "constant", "lr_scaling": "none", "accumulate": 1}  # said only where they are not so
    idle |= {key for key, value in usual.items() if shared.get(key) == value}
    idle |= {"epochs"} if {"max_steps", "max_samples"} & set(shared) else set()  # these set the budget instead
    words = [f"{key}={show(shared[key])}" for key in ("norm", *MAIN) if key in shared and key not in idle]
    if cells.synthetic:
        words = [word + " (synthetic)" if word.startswith("dataset=") else word for word in words]
    return " ".join(words)


def heading(cells: Cells, setting: Setting) -> str:
    """A group's name, with synthetic data marked where only some are."""
    synthetic = "dataset" in cells.varying and any(
        is_synthetic(run) for group in cells.settings[setting].values() for run in group.members
    )
    return label(setting) + (" (synthetic data)" if synthetic else "")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
