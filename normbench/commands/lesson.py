"""`normbench lesson`: a claim as a lab sheet."""

from __future__ import annotations

import argparse
from pathlib import Path

from normbench.commands import console
from normbench.commands.arguments import path
from normbench.errors import UserError
from normbench.files import read_bytes, write_atomically

ABOUT = """\
Writes ID.ipynb, a notebook; ID.html, the same on paper; and ID-key.html, the answer key. Each student types a \
number into a cell, which gives the seeds of their runs; normbench merge puts the runs of a class together. Without \
ID, the lessons are listed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ABOUT
    parser.formatter_class = argparse.HelpFormatter
    words = "a claim that has a study, see normbench claims; a study, for its main claim; or quickstart"
    parser.add_argument("lesson", nargs="?", metavar="ID", help=words)
    words = "default: lessons; a notebook that is there already is left alone"
    parser.add_argument("--output", type=path, metavar="FOLDER", default=Path("lessons"), help=words)


def run(options: argparse.Namespace) -> int:
    """List the lessons, or write one. Returns 0. Raises UserError."""
    from normbench.claims.claim import claims
    from normbench.report.lesson import lesson, lessons

    if options.lesson is None:
        console.say("worked out, with texts and answers of their own")
        for name, title in lessons().items():
            console.say_cut(f"  {name:<28}  {title}")
        console.say("made from the claim")
        for claim in claims():
            if claim.study and claim.id not in lessons():
                console.say_cut(f"  {claim.id:<28}  {claim.as_stated}")
        return 0
    output: Path = options.output
    files = lesson(options.lesson)
    try:
        for name, data in files.items():
            if name.endswith(".ipynb") and (output / name).exists() and read_bytes(output / name) != data:
                why = "is there already, and somebody has worked in it. Choose another --output FOLDER."
                raise UserError(f"{output / name} {why}")
        output.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_atomically(output / name, data)
    except OSError as error:
        raise UserError(f"{output} can't be written: {error}.") from error
    console.say("\n".join(str(console.shortened(output / name)) for name in files))
    return 0
