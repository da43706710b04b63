"""The leaderboard's numbers: one row per scheme and setting, with its seeds averaged and nothing dropped."""

from __future__ import annotations

from dataclasses import dataclass

from normbench.analysis.groups import Cell, Cells, Setting
from normbench.analysis.statistics import Estimate, estimate
from normbench.analysis.wording import notes
from normbench.runs.read import flat

LONG = 120  # characters of a reason
STATUSES = ("complete", "diverged", "unsupported", "failed", "running", "interrupted")


@dataclass(frozen=True, eq=False)
class Row:
    """One cell. Its means are over the complete runs alone (`test.n` of them); `counts` tells of the others."""

    cell: Cell
    rank: int | None  # by mean test accuracy within the setting; None without any
    test: Estimate | None
    validation: Estimate | None
    train_loss: Estimate | None
    seconds: Estimate | None
    parameters: int | None
    counts: dict[str, int]  # each status, and `at_chance`, which are complete as well
    remarks: str


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """`groups` has one list of rows per setting: rows may be compared within a group, best mean first."""

    cells: Cells
    groups: dict[Setting, list[Row]]
    notes: list[str]

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.groups.values() for row in rows]


def leaderboard(cells: Cells) -> Leaderboard:
    groups = {}
    for setting, by_scheme in cells.settings.items():
        seeds = {e.seed for cell in by_scheme.values() for e in cell.entries}
        rows = [_row(cell, seeds) for cell in by_scheme.values()]
        rows.sort(key=lambda row: -row.test.mean if row.test else 1.0)  # stable: without a mean, the schemes' order
        groups[setting] = [
            Row(**{**vars(row), "rank": place if row.test else None}) for place, row in enumerate(rows, start=1)
        ]
    return Leaderboard(cells, groups, notes(cells, [row for rows in groups.values() for row in rows]))


def _row(cell: Cell, seeds: set[object]) -> Row:
    complete = cell.having("complete")
    numbers = [flat(entry.summary) for entry in complete]

    def over(key: str) -> Estimate | None:
        return estimate([summary[key] for summary in numbers if summary.get(key) is not None])

    counts = {status: len(cell.having(status)) for status in STATUSES}
    counts["at_chance"] = sum(bool(entry.summary.get("at_chance")) for entry in complete)
    sizes = [entry.summary["parameters"] for entry in cell.entries if entry.summary.get("parameters") is not None]
    return Row(
        cell,
        None,
        over("test_accuracy"),
        over("validation_accuracy"),
        over("train_loss"),
        over("seconds.training"),
        sizes[0] if sizes else None,
        counts,
        _remarks(cell, counts, seeds),
    )


def _remarks(cell: Cell, counts: dict[str, int], seeds: set[object]) -> str:
    words, complete = [], cell.having("complete")
    if counts["diverged"]:
        steps = ", ".join(str(entry.summary.get("diverged_step")) for entry in cell.having("diverged"))
        words.append(f"{counts['diverged']} of {len(cell.entries)} diverged (at step {steps})")
    words += dict.fromkeys(str(remark) for entry in complete if (remark := entry.summary.get("remark")))
    if counts["at_chance"]:
        words.append(f"{counts['at_chance']} at chance")
    for status in ("unsupported", "failed"):
        reasons = dict.fromkeys(_short(entry.reason) for entry in cell.having(status))
        if reasons:
            words.append(f"{counts[status]} {status}: {' / '.join(reasons)}")
    words += [f"{counts[status]} {status}" for status in ("running", "interrupted") if counts[status]]
    missing = seeds - {entry.seed for entry in cell.entries}
    if missing and not counts["unsupported"]:  # an unsupported cell is so for every seed
        words.append(f"no run of seed {', '.join(sorted(map(str, missing)))}")
    return "; ".join(words)


def _short(reason: str) -> str:
    """In a table; whole it stands with the runs without a result. What is unsupported is told in a sentence or two."""
    return reason if len(reason) <= LONG else reason[: LONG - 4].rsplit(" ", 1)[0] + " ..."
