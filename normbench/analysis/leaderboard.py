"""The leaderboard: one row per scheme and setting, its seeds averaged and nothing dropped, as numbers and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from normbench.analysis.groups import MAIN, STATUSES, Group, Groups, Setting, is_synthetic, label, show
from normbench.analysis.notes import SYNTHETIC, constants, differences, heading, interval_covers, parameters
from normbench.analysis.statistics import Estimate, estimate, estimate_accuracy
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, escape, line, number, setting_columns
from normbench.analysis.tables import percent as percent_of

LONG = 120  # characters of a reason
HEADINGS = ("norm", "test accuracy %", "n", "validation %", "train loss", "parameters", "training s", "remarks")

# Columns that a narrow terminal goes without, in this order. The files have them all.
_EXPENDABLE = ("parameters", "training s", "train loss", "validation %")

_ESTIMATES = {"test_accuracy": "test", "validation_accuracy": "validation", "train_loss": "train_loss"}
_ESTIMATES |= {"training_seconds": "seconds"}  # prefix of the columns -> name in Row


@dataclass(frozen=True, eq=False)
class Row:
    """One group. A diverged run counts at chance in its accuracies and is in no other mean; `counts` has all others."""

    group: Group
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
    """`groups` has one list of rows per setting: rows may be compared within a setting, best mean first."""

    study: Groups
    groups: dict[Setting, list[Row]]
    notes: list[str]

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.groups.values() for row in rows]


def leaderboard(groups: Groups) -> Leaderboard:
    found = {}
    for setting, by_scheme in groups.settings.items():
        seeds = set[Any]().union(*(group.seeds() for group in by_scheme.values()))
        rows = [_row(group, seeds) for group in by_scheme.values()]
        rows.sort(key=lambda row: -row.test.mean if row.test else 1.0)  # stable: without a mean, the schemes' order
        found[setting] = [replace(row, rank=place if row.test else None) for place, row in enumerate(rows, start=1)]
    return Leaderboard(groups, found, notes(groups, [row for rows in found.values() for row in rows]))


def _row(group: Group, seeds: set[Any]) -> Row:
    counts = {status: group.count(status) for status in STATUSES}
    counts["at_chance"] = group.at_chance
    return Row(
        group=group,
        rank=None,
        test=estimate_accuracy(list(group.accuracies().values())),
        validation=estimate_accuracy(list(group.accuracies("validation_accuracy").values())),
        train_loss=estimate(list(group.numbers("train_loss").values())),
        seconds=estimate(list(group.numbers("seconds.training").values())),
        parameters=parameters(group.members),
        counts=counts,
        remarks=_remarks(group, counts, seeds),
    )


def _remarks(group: Group, counts: dict[str, int], seeds: set[Any]) -> str:
    words = []
    if counts["diverged"]:
        steps = ", ".join(str(run.summary.get("diverged_step")) for run in group.having("diverged"))
        words.append(f"{group.diverged} (at step {steps}) and count{'s' * (counts['diverged'] == 1)} at chance")
    words += dict.fromkeys(str(remark) for run in group.having("complete") if (remark := run.summary.get("remark")))
    if counts["at_chance"]:
        words.append(f"{counts['at_chance']} at chance")
    for status in ("unsupported", "failed"):
        reasons = dict.fromkeys(_short(run.reason) for run in group.having(status))
        if reasons:
            words.append(f"{counts[status]} {status}: {' / '.join(reasons)}")
    words += [f"{counts[status]} {status}" for status in ("running", "interrupted") if counts[status]]
    missing = seeds - group.seeds()
    if missing and not counts["unsupported"]:  # an unsupported group is so for every seed
        words.append(f"no run of seed {', '.join(sorted(map(str, missing)))}")
    return "; ".join(words)


def _short(reason: str) -> str:
    """For a table; the runs without a result have it whole. What is unsupported is explained in a sentence or two."""
    return reason if len(reason) <= LONG else reason[: LONG - 4].rsplit(" ", 1)[0] + " ..."


def percent(value: Estimate | None) -> str:
    """An accuracy as "95.10 ± 0.21", "55.00 (0.00 to 100.00)" where that would pass 0 or 1; or without an interval."""
    if value is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{100 * value.mean:.2f} (n = 1)"
    if value.low == 0 or value.high == 1:
        return f"{100 * value.mean:.2f} ({100 * value.low:.2f} to {100 * value.high:.2f})"
    return f"{100 * value.mean:.2f} ± {100 * (value.high - value.mean):.2f}"


def accuracy(row: Row) -> str:
    """The test accuracy as text; of a group of which no run survived, that."""
    lost = row.test is not None and row.counts["diverged"] == row.test.n
    return "diverged" if lost else percent(row.test)


def texts(row: Row) -> tuple[str, ...]:
    """The texts of one row under `HEADINGS`."""
    return (
        row.group.scheme,
        accuracy(row),
        f"{row.test.n if row.test else 0}/{len(row.group.members)}",
        percent(row.validation),
        f"{row.train_loss.mean:.4f}" if row.train_loss else "–",
        f"{row.parameters:,}" if row.parameters is not None else "–",
        f"{row.seconds.mean:.1f}" if row.seconds else "–",
        row.remarks,
    )


def synopsis(rows: Sequence[Row]) -> str:
    """What the rows of a setting show, and no more: the highest mean, and whose intervals meet its own."""
    known = [(row.group.scheme, row.test) for row in rows if row.test]
    if not known:
        return "No run has finished with a result."
    if all(row.counts["at_chance"] + row.counts["diverged"] == row.test.n for row in rows if row.test):
        return "No run does better than chance."
    (name, best), *others = known
    words = f"Highest mean: {name}, {percent(best)}"
    if not others:
        return f"{words}, the only scheme with a result."
    if best.low is None:
        return f"{words}: one seed, so no interval, and no telling a difference between schemes from one between seeds."
    overlapping = [scheme for scheme, test in others if best.overlaps(test)]
    words += f"; its interval overlaps {'those of ' + _and(overlapping) if overlapping else 'none of the others'}."
    alone = [scheme for scheme, test in others if test.low is None]
    return f"{words} One seed and no interval: {_and(alone)}." if alone else words


def notes(groups: Groups, rows: Sequence[Row]) -> list[str]:
    """What a reader has to know beside the numbers; shown with every form of the table."""
    words = [SYNTHETIC] if groups.synthetic else []
    words.append(f"± is half the 95% Student t interval of the mean over n seeds: {interval_covers(groups.members)}.")
    if any(row.test and row.test.n == 1 for row in rows):
        words.append("n = 1: one seed gives no interval.")
    if any(row.test and row.test.n < len(row.group.members) for row in rows):
        words.append("n counts the runs with a result; the remarks say what became of the others.")
    if any(row.counts["diverged"] for row in rows):
        words.append("A run that diverged counts at chance, 1 / classes, in accuracies.")
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
    """One row per group: its settings (even those that all rows share: a line stands alone), then every number."""
    groups = board.study
    keys = [key for key in dict.fromkeys([*MAIN, *groups.varying]) if key in groups.constant or key in groups.varying]
    rows = []
    for row in board.rows:
        settings = groups.constant | dict(row.group.setting)
        values: dict[str, Any] = {"scheme": row.group.scheme} | {key: settings.get(key) for key in keys}
        values["synthetic"] = any(map(is_synthetic, row.group.members))
        values |= {"rank": row.rank, "runs": len(row.group.members)}
        values["seeds"] = " ".join(str(run.seed) for run in row.group.members)
        for name, value in _ESTIMATES.items():
            found = getattr(row, value)
            values |= {f"{name}_{field.name}": getattr(found, field.name, None) for field in fields(Estimate)}
        rows.append(values | {"parameters": row.parameters, **row.counts, "remarks": row.remarks})
    caption = (
        f"From {len(groups.members)} runs, one row per scheme and setting, best mean first within a setting. "
        "Means over the n seeds with a result, a diverged run counting at chance, with the 95% Student t interval of "
        f"the test accuracy (cut at 0 and 100%): {interval_covers(groups.members)}. "
        "IQM: interquartile mean, without the lowest and highest quarter (floor(n / 4) runs at either end). "
        "What became of the other runs is counted beside; at chance counts runs that finished."
    )
    columns = [
        SCHEME,
        *setting_columns(groups),
        Column("test_accuracy_mean", "test accuracy %", percent_of),
        Column("test_accuracy_low", "95% from", percent_of),
        Column("test_accuracy_high", "to", percent_of),
        Column("test_accuracy_median", "median", percent_of),
        Column("test_accuracy_iqm", "IQM", percent_of),
        Column("test_accuracy_n", "n", lambda n: str(n or 0)),
        Column("validation_accuracy_mean", "validation %", percent_of),
        Column("train_loss_mean", "train loss", number("{:.4f}")),
        Column("parameters", "parameters", number("{:,}")),
        Column("training_seconds_mean", "training s", number("{:.1f}")),
        *(Column(status, status.replace("_", " ")) for status in ("diverged", "at_chance", "failed", "unsupported")),
        REMARKS,
    ]
    return Table("leaderboard", "Leaderboard", caption, columns, rows)


def to_markdown(board: Leaderboard) -> str:
    groups = board.study
    lines = [f"# {escape(groups.folder.name)}", "", "All runs: `" + constants(groups).replace("`", "'") + "`", ""]
    headings = [*groups.varying, *HEADINGS]
    lines += [line(headings), line(["---"] * len(headings))]
    lines += [line([*_settings(row), *texts(row)]) for row in board.rows]
    lines += ["", *(f"- {escape(heading(groups, s))}: {escape(synopsis(rows))}" for s, rows in board.groups.items())]
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in [*board.notes, *differences(groups)])]) + "\n"


def print_leaderboard(board: Leaderboard, console: Console | None = None) -> None:
    """Print the table: drawn on a terminal, as plain aligned lines elsewhere (wider than 80 columns if it must be)."""
    console = console or Console()
    headings = [key.rpartition(".")[2] for key in board.study.varying] + list(HEADINGS)
    by_setting = [[_settings(row) + list(texts(row)) for row in rows] for rows in board.groups.values()]
    lines = [headings, *(texts for rows in by_setting for texts in rows)]
    width = [max(len(texts[i]) for texts in lines) for i in range(len(headings))]
    if console.is_terminal:
        kept = list(range(len(headings) - 1))  # remarks are sentences: below
        for name in _EXPENDABLE:
            if sum(width[i] + 3 for i in kept) + 1 > console.width:
                kept.remove(headings.index(name))
        table = RichTable(title=Text(board.study.folder.name), title_justify="left")
        for i in kept:
            words = headings[i] in ("norm", "model", "dataset", "optimizer")
            table.add_column(headings[i], justify="left" if words else "right", no_wrap=True)
        for rows in by_setting:
            for row_texts in rows:
                table.add_row(*(Text(row_texts[i]) for i in kept))
            table.add_section()
        console.print(table)
        for row in board.rows:
            if row.remarks:
                name = ", ".join(filter(None, (row.group.scheme, label(row.group.setting, ""))))
                _plain(console, f"{name}: {row.remarks}")
    else:
        for row_texts in lines:
            _plain(console, "  ".join(text.ljust(w) for text, w in zip(row_texts, width, strict=True)).rstrip())
    _plain(console, f"All runs: {constants(board.study)}")
    for note in [*board.notes, *differences(board.study)]:
        _plain(console, note)


def _settings(row: Row) -> list[str]:
    return [show(value) if value is not None else "" for _, value in row.group.setting]


def _plain(console: Console, text: str) -> None:
    """Print as it is: no markup in the names of schemes, no colours, and wrapped by the terminal alone."""
    console.print(Text(text), soft_wrap=True)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
