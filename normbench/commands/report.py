"""`normbench report`: what it is asked with, and what is said when that can't be had."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("study", nargs="?", type=Path, help="results/<study>; left out, the one changed last")
    add("--reference", metavar="SCHEME", help="the scheme that all others are compared with; default: none")
    add("--margin", metavar="POINTS", help="differences below it count as none (equivalence); default: 0.5 points")
    add("--target", metavar="SHARE", action="append", help="accuracy to time the way to; default: 0.95 and 0.98")
    words = "only runs with one of the values of each key: --filter norm=batch,layer batch_size=4; the page says so"
    add("--filter", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=words)
    add("--open", action="store_true", help="open the page in your browser")


def run(asked: argparse.Namespace, folder: Path) -> int:
    """Build the report of the study in `folder` and print it in short. Raises UserError."""
    from normbench import report
    from normbench.claims.report import answers
    from normbench.commands import console
    from normbench.config.options import question
    from normbench.errors import UserError

    name = folder.resolve().name
    try:
        options = report.Options(asked.reference, **_numbers(asked.margin, asked.target))
        only = report.parse(asked.filter)
        built = report.build(folder, options, only, question(name), jobs=None, extra=answers(name))
    except FileNotFoundError as error:
        raise UserError(f"{error}{_studies(folder)}") from error
    except report.ReportError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"the report can't be written: {error}.") from error
    console.print_report(built)
    if asked.open:
        _open(built.page)
    return 0


def _open(page: Path) -> None:
    """Show a page in the user's browser; where there is none, say so: the page is built all the same."""
    import webbrowser

    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except (OSError, webbrowser.Error):
        opened = False
    if not opened:
        print(f"No browser was found. Open it yourself: {page.resolve()}")


def _studies(folder: Path) -> str:
    """What there is in place of `folder`, where that is missing."""
    found = sorted({path.parent.parent.as_posix() for path in Path("results").glob("*/*/config.yaml")})
    return f" There are: {', '.join(found)}." if found and not folder.exists() else ""


def _numbers(margin: str | None, targets: list[str] | None) -> dict[str, Any]:
    """Those of `report.Options` that were given. Raises UserError."""
    from normbench.errors import UserError

    def number(name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{name} is a number: got {text}.") from None

    given: dict[str, Any] = {}
    if margin is not None:
        given["margin"] = number("--margin", margin)
    if targets:
        given["targets"] = tuple(sorted({number("--target", text) for text in targets}))
    return given
