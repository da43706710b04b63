"""`normbench claims`: the list, and with --run the studies and calculations behind it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.commands import console
from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.claims.claim import Claim


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench claims [--run [ID ...]] [-- KEY=VALUE ...]"
    parser.epilog = "Words after -- go to each study: normbench claims --run small_batch_fails -- seed=0,1"
    words = "run what these claims need, all if none is named; what is finished is skipped"
    parser.add_argument("--run", nargs="*", metavar="ID", help=words)


def run(options: argparse.Namespace) -> int:
    """List the claims, or run them and print the scoreboard. Returns 1 if a run failed. Raises UserError."""
    from normbench.claims import scoreboard
    from normbench.claims.claim import claims, find

    words = [word for word in options.words if word != "--"]
    if any(word.partition("=")[0] in ("study", "experiment") for word in words):
        raise UserError("a claim has its own study: leave out study=... and experiment=...")
    given = [word.partition("=")[2] for word in words if word.startswith("results_dir=")]
    results = Path(given[-1] if given else "results").expanduser()
    if options.run is None:
        _print(scoreboard.status_of(claims(), results), "command", "minutes")
        return 0
    found = find(options.run)
    try:
        failed = _make(found, results, words)
        scoreboard.write(claims(), results)
    except OSError as error:
        raise UserError(f"{scoreboard.folder(results)} can't be written: {error}.") from error
    _print(scoreboard.status_of(found, results), "measured", "expected")
    print(f"scoreboard: {scoreboard.folder(results) / 'scoreboard.md'}")
    return int(failed)


def _make(found: Sequence[Claim], results: Path, words: list[str]) -> bool:
    """Calculate first, for the reports of studies show that too; then study by study. Returns whether a run failed."""
    from normbench.claims.scoreboard import calculated, write_calculated
    from normbench.commands.run import run_words

    for name in dict.fromkeys(name for claim in found for name in claim.calculations):
        from normbench.verify.calculations import calculate

        print(f"calculating {name}", flush=True)
        write_calculated(results, {**calculated(results), name: calculate(name)})
    failed = False
    for study in dict.fromkeys(claim.study for claim in found if claim.study):
        print(f"\nnormbench run experiment={study} {' '.join(words)}".rstrip(), flush=True)
        failed |= run_words([f"experiment={study}", *words]) != 0
    return failed


def _print(statements: Sequence[Mapping[str, Any]], *columns: str) -> None:
    """A row for each statement; what all statements of a claim share is said once."""
    from rich.text import Text

    from normbench.claims.verdicts import MARKS

    rows, last = [], ""
    for found in statements:
        mark, color = MARKS.get(found["verdict"], ("", "default"))
        shared = ("claim", "command", "minutes") if found["claim"] == last else ()
        texts = {key: "" if key in shared else found[key] for key in ("claim", *columns)}
        verdict = Text(f"{mark} {found['verdict'] or 'not run'}", style=color)
        others = (texts[column] for column in columns)
        rows.append((texts["claim"], found["statement"], verdict, found["sentence"], *others))
        last = found["claim"]
    names = ("claim", "", "verdict", "statement", *(column.replace("_", " ") for column in columns))
    console.print_table(names, rows, right=())
