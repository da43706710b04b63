"""The arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from normbench.errors import UserError


def path(text: str) -> Path:
    """A path as it is typed: a shell leaves the ~ of --data-dir=~/x as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{error}: {text}") from error


def add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", type=path, help="results/<study>; left out, the one changed last")


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    words = "with your own schemes, models and data sets, as in normbench run"
    parser.add_argument("--config-dir", type=path, action="append", default=[], metavar="DIR", help=words)


def study_of(folder: Path | None) -> Path:
    """`folder`, or the study that was changed last. Raises UserError where there is none."""
    if folder is not None:
        return folder
    studies = {path.parent.parent for path in Path("results").glob("*/*/config.yaml")}
    if not studies:
        raise UserError("there are no studies in results/. Make one: normbench run experiment=demo")
    return max(studies, key=lambda study: study.stat().st_mtime)
