"""`normbench claims`: the list; with --run the studies and calculations behind it, with --settle further seeds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from normbench.commands import console
from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.claims.claim import Claim
    from normbench.claims.verdicts import Judged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench claims [ID ...] [--run [ID ...] | --settle [ID ...]] [-- KEY=VALUE ...]"
    parser.epilog = "Words after -- go to each study: normbench claims --run small_batch_fails -- seed=0,1"
    words = "run what these claims need, all if none is named; what is finished is skipped"
    parser.add_argument("--run", nargs="*", metavar="ID", help=words)
    words = "of those that are undecided, run the new seeds (or learning rates) that decide them with a chance of 80%%"
    parser.add_argument("--settle", nargs="*", metavar="ID", help=words)


def run(options: argparse.Namespace) -> int:
    """List the claims, say all of those that are named, or run them and write the scoreboard.

    Returns 1 if a run failed. Raises UserError.
    """
    from normbench.claims.claim import claims, find
    from normbench.claims.scoreboard import folder, status_of

    words = [word for word in options.words if word != "--"]
    if any(word.partition("=")[0] in ("study", "experiment") for word in words):
        raise UserError("a claim has its own study: leave out study=... and experiment=...")
    given = [word.partition("=")[2] for word in words if word.startswith("results_dir=")]
    results = Path(given[-1] if given else "results").expanduser()
    if options.run is None and options.settle is None:
        named = [word for word in words if not word.startswith("results_dir=")]
        _print(status_of(find(named), results), bool(named))
        return 0
    found = find(options.run or options.settle or [])
    try:
        failed = _settle(found, results, words) if options.run is None else _make(found, results, words)
        from normbench.report.claims import write

        page = write(claims(), results)
    except OSError as error:
        raise UserError(f"{folder(results)} can't be written: {error}.") from error
    _print(status_of(found, results), bool(options.run or options.settle))
    console.say(f"scoreboard: {page}")
    return int(failed)


def _make(found: Sequence[Claim], results: Path, words: list[str]) -> bool:
    """Calculate first, for the reports of studies show that too; then study by study. Returns whether a run failed."""
    from normbench.claims.scoreboard import calculated, write_calculated

    for name in dict.fromkeys(name for claim in found for name in claim.calculations):
        from normbench.verify.calculations import calculate

        print(f"calculating {name}", flush=True)
        write_calculated(results, {**calculated(results), name: calculate(name)})
    return _sweep([f"experiment={study}", *words] for study in dict.fromkeys(c.study for c in found if c.study))


def _settle(found: Sequence[Claim], results: Path, words: list[str]) -> bool:
    """The sweeps that undecided statements need, as their studies' runs say now. Returns whether a run failed."""
    from normbench.analysis.groups import read
    from normbench.claims.scoreboard import calculated
    from normbench.claims.verdicts import UNDECIDED, judge
    from normbench.runs import load

    sweeps: dict[tuple[str, ...], None] = {}
    for study in dict.fromkeys(claim.study for claim in found if claim.study):
        try:
            groups = read(load(results / study))
        except FileNotFoundError as error:
            raise UserError(f"{error}. Run it first: normbench claims --run") from error
        for judged in (judge(claim, groups, calculated(results)) for claim in found if claim.study == study):
            for key in judged.claim.statements:
                if judged.verdict(key) == UNDECIDED:
                    sweeps |= {tuple(one): None for answer in judged.of(key) for one in answer.sweeps}
    return _sweep(["-m", *one, *words] for one in sweeps)


def _sweep(sweeps: Iterable[list[str]]) -> bool:
    """Run one after the other. Returns whether a run failed."""
    from normbench.commands.run import run_words

    failed = False
    for words in sweeps:
        print(f"\nnormbench run {' '.join(words)}", flush=True)
        failed |= run_words(words) != 0
    return failed


def _print(found: Sequence[Judged], in_full: bool) -> None:
    """A line for each claim, or all that is known of each."""
    from normbench.claims.scoreboard import statements
    from normbench.claims.verdicts import MARKS

    for claim, rows in groupby(statements(found).rows, key=itemgetter("claim")):
        first, *others = rows
        marks = [f"{MARKS.get(row['verdict'], ('', ''))[0]} {row['verdict']}".strip() for row in (first, *others)]
        if not in_full:
            console.say_cut(f"{claim:<28}  {' / '.join(dict.fromkeys(marks)):<14}  {first['sentence']}")
            continue
        console.say(f"{claim}, of {first['source']}")
        for row, mark in zip((first, *others), marks, strict=True):
            console.say(f"  {row['statement']:<10}  {mark}: {row['sentence']}")
            needs = f"; to settle it: {row['needs']}" * bool(row["needs"])
            if row["measured"]:
                console.say(f"  {'measured':<10}  {row['measured']}, expected {row['expected']}{needs}")
        console.say(f"  {'to run it':<10}  {first['command']} ({first['minutes']} min)")
