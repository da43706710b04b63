"""`normbench explain`: what it is asked with, and which steps answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from normbench.commands.parsing import Parser

DESCRIPTION = """\
What a normalization scheme computes, step by step, on real images: a mini-batch (of 4, unless batch_size= says
otherwise) goes through a network that was trained for 200 steps on the spot, or with --run through a finished run's."""

EXAMPLES = """\
examples:
  normbench explain norm=batch batch_size=4                               batch normalization in an MLP
  normbench explain norm=batch model=cnn --layer conv2 --unit 3           over images and positions
  normbench explain norm=layer --worksheet                                to be filled in; the key is at the end
  normbench explain --run results/scratch/batch-mlp-mnist-1a2b3c4d        the network of a finished run
"""


def _parser() -> Parser:
    parser = Parser(
        prog="normbench explain",
        usage="normbench explain [KEY=VALUE ...] [--layer L] [--unit U] [--run RUN] [--worksheet | --json]",
        description=DESCRIPTION,
        epilog=f"KEY=VALUE: as in normbench run\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--layer", help="a block, as normbench describe names it; default: the first")
    parser.add_argument("--unit", type=int, default=0, help="which unit or channel of it, from 0; default: 0")
    parser.add_argument("--run", type=Path, help="the folder of a finished run, whose network is explained")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--worksheet", action="store_true", help="leave blanks for what is calculated, with a key")
    how.add_argument("--json", action="store_true", help="every number, unrounded")
    return parser


def main(words: Sequence[str]) -> int:
    """`normbench explain WORDS`. Returns 0. Raises UserError."""
    asked, rest = _parser().parse_known_args(list(words))
    from normbench.commands import explain_network as network
    from normbench.commands import explain_show as show
    from normbench.explain.scheme import explanation
    from normbench.explain.steps import as_json

    subject = network.fresh(rest) if asked.run is None else network.of_run(asked.run, rest)
    if subject is None:
        return 0
    steps, facts = explanation(subject, asked.layer, asked.unit)
    if asked.json:
        print(json.dumps(as_json(steps, facts), indent=1, allow_nan=False))
    else:
        show.show(steps, facts, asked.worksheet)
    return 0
