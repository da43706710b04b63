"""`normbench demo`: a first study, from the images of MNIST to its report."""

from __future__ import annotations

import argparse

from normbench.commands.run import run_words
from normbench.errors import UserError

DESCRIPTION = """\
Fetch MNIST if needed (to $NORMBENCH_DATA, or else your cache folder), train five schemes at five batch sizes with \
five seeds, and build the report in results/demo: four minutes on two cores. The same as normbench run \
experiment=demo; more words are options, such as seed=0,1. Repeating the command continues it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench demo [KEY=VALUE ...]"
    parser.description = DESCRIPTION


def run(options: argparse.Namespace) -> int:
    """Returns and raises as `run_words`."""
    if other := next((word for word in options.words if word.startswith("experiment=")), None):
        raise UserError(f"the demo is one study. For another one: normbench run {other}")
    return run_words(["experiment=demo", *options.words])
