"""`normbench merge`: the runs of a class in one study, and what they say together."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from normbench.commands import console
from normbench.commands.arguments import path
from normbench.errors import UserError
from normbench.runs import merge

ABOUT = """\
Every run must be over and as it was written, and have the configuration of one of the runs of the first folder, but \
for the seed and what only names, places or observes a run. Otherwise it is said which run is refused and why, and \
nothing is written. A run that is there already, with the same numbers, is skipped: repeat the command with further \
folders to add them. The report answers the claims of the study that the merged folder is named after."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ABOUT
    parser.formatter_class = argparse.HelpFormatter
    parser.add_argument("folders", nargs="+", type=path, metavar="FOLDER", help="a study: student_1/small_batches")
    words = "the folder of the merged study; default: merged/<name of the first folder>"
    parser.add_argument("--into", type=path, metavar="STUDY", help=words)


def run(options: argparse.Namespace) -> int:
    """Merge studies, build the report of all runs, and print what it says. Returns 0. Raises UserError."""
    from normbench.commands.report import build

    folders: list[Path] = options.folders
    into: Path = options.into or Path("merged") / folders[0].resolve().name
    console.announce(f"checking the runs of {len(folders)} folders")
    try:
        merged = merge(folders, into)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    counts = Counter(name.rpartition("/")[0] for name in merged.copied)
    for study, n in counts.items():
        console.say(f"{study}: {n} run{'s' * (n > 1)}")
    for name, same in merged.repeated.items():
        console.say(f"skipped: {name} has the configuration, seed and numbers of {same}")
    built = build(into)
    for judged in built.content.claims:
        if any(answer.n for answer in judged.answers):
            console.say(f"\n{judged.claim.id}")
            rows = [(a.check.words, a.measured, a.check.expected, a.verdict) for a in judged.answers if a.n]
            console.print_table(("", "the class", "claimed", ""), rows, right=())
    return 0
