"""`normbench diff`: which settings changed between two studies, and by how much."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from normbench.analysis.comparisons import Comparison, changes
from normbench.analysis.groups import label, read
from normbench.analysis.statistics import LEVEL
from normbench.analysis.tables import percent, points
from normbench.commands import console
from normbench.commands.arguments import path
from normbench.errors import UserError
from normbench.runs import load_together

WORDS = {  # what can be said of a setting, and its sentence; in the order of the table
    "changed": "changed (p < 0.05 after Holm's correction for all of them)",
    "not shown": "without a change that these seeds show",
    "same": "with the same accuracies",
    "no result": "without a result in one of the two",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = "a study: results/<study>, or a folder of runs from elsewhere"
    for name in ("A", "B"):
        parser.add_argument(name, type=path, help=words)


def run(options: argparse.Namespace) -> int:
    """Print the test accuracies of B minus those of A for each scheme and setting. Returns 0. Raises UserError."""
    folders: list[Path] = [options.A, options.B]
    try:
        study = load_together(*folders)
        groups = read(study)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    names = list(dict.fromkeys(run.study for run in study))
    counts = [sum(run.study == name for run in groups.members) for name in names]
    if 0 in counts:
        why = next(why for run, why in study.unreadable.items() if run.startswith(f"{names[counts.index(0)]}/"))
        raise UserError(f"{folders[counts.index(0)]} holds no run that can be read: {why}")
    for letter, folder, count in zip("AB", folders, counts, strict=True):
        console.say(f"{letter}: {folder}, {count} run{'s' * (count > 1)}")
    rows = changes(groups, *names)
    both = sorted((row for row in rows if not row["only"]), key=lambda row: [*WORDS].index(_verdict(row)))
    counted = Counter(map(_verdict, both))
    said = [f"{counted[word]} {text}" for word, text in WORDS.items() if counted[word]]
    found = f"{len(both)} setting{'s' * (len(both) != 1)} in both"
    console.say(": ".join(filter(None, [found, "; ".join(said)])))
    if both:
        console.say("")
        columns = ("", "A, %", "B, %", "B - A, points", "95% interval", "n", "")
        console.print_table(columns, map(_cells, both), right=columns[1:6])
        pairs = "n: 5 pairs of runs of the same seed (paired t), or 5+4 runs of A and B (Welch's t)"
        console.say(f"\nTest accuracy, and the 95% interval of each difference by itself. {pairs}.")
    for name, letter in zip(names, "AB", strict=True):
        alone = [f"  {_name(row)}" for row in rows if row["only"] == name]
        if alone:
            console.say("\n".join([f"\nonly in {letter}:", *alone]))
    for name, why in study.unreadable.items():
        console.say(f"not read: {name} ({why})")
    return 0


def _name(row: Comparison) -> str:
    return ", ".join(filter(None, [row["scheme"], label(row["setting"], "")]))


def _verdict(row: Comparison) -> str:
    if row["difference"] is None:
        return "no result"
    if row["before"] == row["after"]:
        return "same"
    return "changed" if row["p_holm"] is not None and row["p_holm"] < LEVEL else "not shown"


def _cells(row: Comparison) -> list[str]:
    arms = row["before"], row["after"]
    means = [percent(sum(values) / len(values)) if values else "–" for values in arms]
    interval = "" if row["low"] is None else f"{points(row['low'])} to {points(row['high'])}"
    n = f"{len(arms[0])}" if row["paired"] else f"{len(arms[0])}+{len(arms[1])}"
    return [_name(row), *means, points(row["difference"]), interval, n, _verdict(row)]
