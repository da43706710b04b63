"""`normbench export`: a study as Parquet, TensorBoard, LaTeX or JSON files."""

from __future__ import annotations

import argparse
from pathlib import Path

from normbench.commands import console
from normbench.commands.arguments import add_study, path, study_of
from normbench.errors import UserError
from normbench.export import FORMATS, files
from normbench.files import write_atomically
from normbench.runs import load

ABOUT = """\
parquet      runs, steps, epochs and each instrument's table, a file each: pandas.read_parquet, duckdb
tensorboard  an event file per run: curves, the layers' histograms, hparams. Then: tensorboard --logdir FOLDER
latex        the report's tables, with intervals (booktabs): \\input one, or compile tables.tex, which has all
json         study.json: the runs with settings and summaries, and the rows of all tables
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    parser.epilog = ABOUT
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format, see below")
    words = "default: exports/<study>-<format>; files of the same name in it are replaced"
    parser.add_argument("--output", type=path, metavar="FOLDER", help=words)


def run(options: argparse.Namespace) -> int:
    """Write a study in another format. Nothing is written before all of it can be. Returns 0. Raises UserError."""
    folder = study_of(options.study)
    name = folder.resolve().name
    output: Path = options.output or Path("exports") / f"{name}-{options.to}"
    try:
        study = load(folder)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise UserError(f"--output {output} lies in the study's folder, which is for its runs. Name another folder.")
    if not study.members:
        raise UserError(f"{folder} holds no run that can be read: {next(iter(study.unreadable.values()))}")
    console.announce(f"reading {console.shortened(folder)}")
    try:
        written = dict(files(study, options.to))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} can't be exported: {error}") from error
    try:
        for file, data in written.items():
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(output / file, data)
    except OSError as error:
        raise UserError(f"{output} can't be written: {error}.") from error
    for unread, why in study.unreadable.items():
        console.say(f"not read: {unread} ({why})")
    size = sum(map(len, written.values())) / 1e6
    count = "1 file" if len(written) == 1 else f"{len(written)} files"
    console.say(f"{len(study.members)} runs of {name} in {count}, {size:.1f} MB: {console.shortened(output)}")
    return 0
