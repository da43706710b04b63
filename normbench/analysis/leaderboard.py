"""The leaderboard: one row per scheme and setting, its seeds averaged and nothing dropped, as numbers and as text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from normbench.analysis.groups import MAIN, STATUSES, Group, Groups, Setting, is_synthetic
from normbench.analysis.instrument_tables import accuracies
from normbench.analysis.notes import SYNTHETIC, constants, differences, heading, interval_covers, parameters
from normbench.analysis.statistics import Estimate, estimate, estimate_accuracy
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, escape, number, percent, setting_columns

LONG = 120  # characters of a reason
Row = dict[str, Any]  # of `Leaderboard.table`: every number, and the texts of `SHORT`
ESTIMATES = ("test_accuracy", "validation_accuracy", "precise", "train_loss", "training_seconds")
PRECISE = Column("precise_text", "validation % with precise", str, "precise_mean")
FLOPS = Column("flops", "MFLOPs per update", number("{:,.1f}", 1e-6))
SHORT = (
    Column("scheme", "norm", numeric=False),
    Column("test_accuracy_text", "test accuracy %", str, "test_accuracy_mean"),
    Column("n_text", "n", str, "test_accuracy_n"),
    Column("validation_accuracy_text", "validation %", str, "validation_accuracy_mean"),
    PRECISE,
    Column("train_loss_mean", "train loss", number("{:.4f}")),
    Column("parameters", "parameters", number("{:,}")),
    FLOPS,
    Column("training_seconds_mean", "training s", number("{:.1f}")),
    REMARKS,
)


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """`groups` has one list of rows per setting: rows may be compared within a setting, best mean first."""

    study: Groups
    groups: dict[Setting, list[Row]]
    notes: list[str]

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.groups.values() for row in rows]

    @property
    def short(self) -> list[Column]:
        """The columns that a reader sees first; accuracy with precise statistics and FLOPs where they were measured."""
        measured = {PRECISE: any(row["precise_n"] for row in self.rows), FLOPS: any(row["flops"] for row in self.rows)}
        return [column for column in SHORT if measured.get(column, True)]


@lru_cache(maxsize=1)  # the page and its tables want it
def leaderboard(groups: Groups) -> Leaderboard:
    found = {}
    for setting, by_scheme in groups.settings.items():
        seeds = set[Any]().union(*(group.seeds() for group in by_scheme.values()))
        rows = [_row(groups, group, seeds) for group in by_scheme.values()]
        rows.sort(key=lambda row: -row["test_accuracy_mean"] if row["test_accuracy_n"] else 1.0)  # stable
        for place, row in enumerate(rows, start=1):
            row["rank"] = place if row["test_accuracy_n"] else None
        found[setting] = rows
    return Leaderboard(groups, found, _notes(groups, [row for rows in found.values() for row in rows]))


def _row(groups: Groups, group: Group, seeds: Collection[Any]) -> Row:
    """One group. A diverged run counts at chance in its accuracies and is in no other mean.

    Its settings are in it even where all rows share them: a line of the CSV file stands alone.
    """
    keys = [key for key in dict.fromkeys([*MAIN, *groups.varying]) if key in groups.constant or key in groups.varying]
    settings = groups.constant | dict(group.setting)
    row: Row = {"scheme": group.scheme} | {key: settings.get(key) for key in keys}
    row |= {"synthetic": any(map(is_synthetic, group.members)), "rank": None, "runs": len(group.members)}
    row["seeds"] = " ".join(map(str, group.each_seed))
    precise = [of_run["precise"] for run in group.having("complete") if "precise" in (of_run := accuracies(run))]
    estimates = (
        estimate_accuracy(list(group.accuracies().values())),
        estimate_accuracy(list(group.accuracies("validation_accuracy").values())),
        estimate_accuracy(precise),
        estimate(list(group.numbers("train_loss").values())),
        estimate(list(group.numbers("seconds.training").values())),
    )
    for name, found in zip(ESTIMATES, estimates, strict=True):
        row |= {f"{name}_{field.name}": getattr(found, field.name, None) for field in fields(Estimate)}
    test, validation, of_precise, *_ = estimates
    lost = test is not None and group.count("diverged") == test.n  # no run has survived
    row |= {"test_accuracy_text": "diverged" if lost else format_accuracy(test)}
    row |= {"n_text": f"{test.n if test else 0}/{len(group.members)}"}
    row |= {"validation_accuracy_text": format_accuracy(validation), "precise_text": format_accuracy(of_precise)}
    row |= {"parameters": parameters(group.members)} | {status: group.count(status) for status in STATUSES}
    counted = ((run.summary.get("measured") or {}).get("memory_time") or {} for run in group.members)
    row |= {"flops": next((found["flops"] for found in counted if found.get("flops")), None)}
    return row | {"at_chance": group.at_chance, "remarks": _remarks(group, seeds)}


def _remarks(group: Group, seeds: Collection[Any]) -> str:
    words = []
    if group.diverged:
        steps = ", ".join(str(run.summary.get("diverged_step")) for run in group.having("diverged"))
        words.append(f"{group.diverged} (at step {steps}) and count{'s' * (group.count('diverged') == 1)} at chance")
    words += dict.fromkeys(str(remark) for run in group.having("complete") if (remark := run.summary.get("remark")))
    if group.at_chance:
        words.append(f"{group.at_chance} at chance")
    for status in ("unsupported", "failed"):
        reasons = dict.fromkeys(_short(run.reason) for run in group.having(status))
        if reasons:
            words.append(f"{group.count(status)} {status}: {' / '.join(reasons)}")
    words += [f"{n} {status}" for status in ("running", "interrupted") if (n := group.count(status))]
    missing = set(seeds) - group.seeds()
    if missing and not group.count("unsupported"):  # an unsupported group is so for every seed
        words.append(f"no run of seed {', '.join(sorted(map(str, missing)))}")
    return "; ".join(words)


def _short(reason: str) -> str:
    """For a table; the runs without a result have it whole. What is unsupported is explained in a sentence or two."""
    return reason if len(reason) <= LONG else reason[: LONG - 4].rsplit(" ", 1)[0] + " ..."


def format_accuracy(value: Estimate | None) -> str:
    """An accuracy as "95.10 ± 0.21", "55.00 (0.00 to 100.00)" where that would pass 0 or 1; or without an interval."""
    if value is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{100 * value.mean:.2f} (n = 1)"
    if value.low == 0 or value.high == 1:
        return f"{100 * value.mean:.2f} ({100 * value.low:.2f} to {100 * value.high:.2f})"
    return f"{100 * value.mean:.2f} ± {100 * (value.high - value.mean):.2f}"


def synopsis(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of a setting show, and no more: the highest mean, and whose intervals meet its own."""
    known = [row for row in rows if row["test_accuracy_n"]]
    if not known:
        return "No run has finished with a result."
    if all(row["at_chance"] + row["diverged"] == row["test_accuracy_n"] for row in known):
        return "No run does better than chance."
    best, *others = known
    words = f"Highest mean: {best['scheme']}, {best['test_accuracy_text']}"
    if not others:
        return f"{words}, the only scheme with a result."
    if best["test_accuracy_low"] is None:
        return f"{words}: one seed, so no interval, and no telling a difference between schemes from one between seeds."
    alone = [row["scheme"] for row in others if row["test_accuracy_low"] is None]
    several = [row for row in others if row["test_accuracy_low"] is not None]  # no mean of theirs is higher
    meet = [row["scheme"] for row in several if row["test_accuracy_high"] >= best["test_accuracy_low"]]
    words += f"; its interval overlaps {'those of ' + _and(meet) if meet else 'none of the others'}."
    return f"{words} One seed and no interval: {_and(alone)}." if alone else words


def _notes(groups: Groups, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader has to know beside the numbers; shown with every form of the table."""
    words = [SYNTHETIC] if groups.synthetic else []
    words.append(f"± is half the 95% Student t interval of the mean over n seeds: {interval_covers(groups.members)}.")
    if any(row["test_accuracy_n"] == 1 for row in rows):
        words.append("n = 1: one seed gives no interval.")
    if any(0 < (row["test_accuracy_n"] or 0) < row["runs"] for row in rows):
        words.append("n counts the runs with a result; the remarks say what became of the others.")
    if any(row["diverged"] for row in rows):
        words.append("A run that diverged counts at chance, 1 / classes, in accuracies.")
    if any(row["precise_n"] for row in rows):
        words.append("With precise: the same weights, evaluated with precise statistics (norm.statistics).")
    if len(rows) > 1:
        words.append(
            "Rows are in order of their mean within a setting. Overlapping intervals are no proof of equality."
        )
    if groups.repeated:
        words.append(
            f"Left out, because another run has the same configuration and seed: {', '.join(groups.repeated)}."
        )
    return words + [f"Not read: {name} ({why})." for name, why in groups.unreadable.items()]


def leaderboard_table(board: Leaderboard) -> Table:
    """Every number beside the other."""
    groups = board.study
    caption = (
        f"From {len(groups.members)} runs, one row per scheme and setting, best mean first within a setting. "
        "Means over the n seeds with a result, a diverged run counting at chance, with the 95% Student t interval of "
        f"the test accuracy (cut at 0 and 100%): {interval_covers(groups.members)}. "
        "IQM: interquartile mean, without the lowest and highest quarter (floor(n / 4) runs at either end). "
        "What became of the other runs is counted beside; at chance counts runs that finished."
    )
    if FLOPS in board.short:
        caption += (
            " FLOPs are those of matrix products and convolutions, forward and backward, by torch's formulas: what a "
            "norm itself does is not among them."
        )
    columns = [
        SCHEME,
        *setting_columns(groups),
        Column("test_accuracy_mean", "test accuracy %", percent),
        Column("test_accuracy_low", "95% from", percent),
        Column("test_accuracy_high", "to", percent),
        Column("test_accuracy_median", "median", percent),
        Column("test_accuracy_iqm", "IQM", percent),
        Column("test_accuracy_n", "n", lambda n: str(n or 0)),
        Column("validation_accuracy_mean", "validation %", percent),
        *board.short[4:-1],
        *(Column(status, status.replace("_", " ")) for status in ("diverged", "at_chance", "failed", "unsupported")),
        REMARKS,
    ]
    return Table("leaderboard", "Leaderboard", caption, columns, board.rows)


def to_markdown(board: Leaderboard) -> str:
    groups = board.study
    shown = Table("", "", "", [*setting_columns(groups), *board.short], board.rows)
    lines = [f"# {escape(groups.folder.name)}", "", "All runs: `" + constants(groups).replace("`", "'") + "`", ""]
    lines += [*shown.lines(), ""]
    lines += [f"- {escape(heading(groups, s))}: {escape(synopsis(rows))}" for s, rows in board.groups.items()]
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in [*board.notes, *differences(groups)])]) + "\n"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
