"""`normbench verify`: the words it is called with, its table, and its exit code."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normbench.verify import Result

DETAILED = 2  # schemes, up to which every single check gets a line


def run(words: list[str]) -> int:
    """Verify the schemes that `words` name, all if none. Returns 1 if a check failed. Raises UserError."""
    from normbench.config import app
    from normbench.config.options import choices
    from normbench.errors import ConfigError
    from normbench.experiment import build
    from normbench.verify import verify

    as_json, words = "--json" in words, [word for word in words if word not in ("--json", "-m", "--multirun")]
    if not any(re.match(r"\+*norm=", word) for word in words):
        words = [f"norm={','.join(choices('norm'))}", *words]
    cells, _ = app.cells("verify", ["-m", *words])
    found: dict[str, list[Result]] = {}
    for cell in cells:
        name = " ".join(word for word in cell.words if word.startswith("norm"))
        if name in found:  # the words also list what no scheme knows, such as seeds
            continue
        try:
            found[name] = verify(build(cell.config).scheme, cell.config["norm"], cell.config["device"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: {error}") from error
    failed = any(result.passed is False for results in found.values() for result in results)
    if as_json:
        print(json.dumps(_plain(found, failed), indent=1))
    else:
        _print(found)
    return 1 if failed else 0


def _plain(found: dict[str, list[Result]], failed: bool) -> dict[str, object]:
    import torch

    return {
        "torch": torch.__version__,
        "passed": not failed,
        "schemes": {name: [asdict(result) for result in results] for name, results in found.items()},
    }


def _print(found: dict[str, list[Result]]) -> None:
    import torch

    from normbench.commands import console

    for name, results in found.items() if len(found) <= DETAILED else ():
        console.say(name)
        table = console.plain_table()
        for column in ("check", "layer", "", "largest error", "what was seen"):
            table.add_column(column)
        for r in results:
            table.add_row(r.check, r.place, _word(r.passed), "" if r.error is None else f"{r.error:.0e}", r.note)
        console.out.print(table)
    if len(found) > DETAILED:
        _print_matrix(found)
    wrong = [(name, r) for name, results in found.items() for r in results if r.passed is False]
    for name, r in wrong:
        console.say(
            f"FAILED {name}, {r.place}, {r.check}: {r.note}{'' if r.error is None else f' (error {r.error:.1e})'}"
        )
    count = sum(r.passed is not None for results in found.values() for r in results)
    console.say(f"torch {torch.__version__}: {count - len(wrong)} of {count} checks passed")


def _print_matrix(found: dict[str, list[Result]]) -> None:
    """A line for each scheme: of each check the largest error, over dense layers and convolutions."""
    from normbench.commands import console
    from normbench.verify.checks import CHECKS

    table = console.plain_table()
    for column in ("scheme", *CHECKS):
        table.add_column(column)
    for name, results in found.items():
        cells = []
        for check in CHECKS:
            of_it = [r for r in results if r.check == check]
            judged = [r.passed for r in of_it if r.passed is not None]
            # float32 is judged against a limit of its own and would hide the others
            errors = [r.error for r in of_it if r.error is not None and "float32" not in r.note]
            cells.append(" ".join([_word(all(judged)) if judged else "-", *([f"{max(errors):.0e}"] if errors else [])]))
        table.add_row(name, *cells)
    console.out.print(table)
    console.say("largest errors, over dense layers and convolutions in float64; - : no reference\n")


def _word(passed: bool | None) -> str:
    return "-" if passed is None else "pass" if passed else "FAIL"
