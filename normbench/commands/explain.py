"""`normbench explain`: what a scheme computes, step by step, on real images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from normbench.commands import console
from normbench.commands.arguments import add_config_dir, path
from normbench.commands.trained import Trained, load_trained, require_complete
from normbench.errors import ConfigError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from normbench.explain.place import Step, Subject

DESCRIPTION = """\
What a normalization scheme computes, step by step, on real images: a mini-batch (of 4, unless batch_size= says \
otherwise) goes through a network that was trained for 200 steps on the spot, or with --run through a finished run's."""
EXAMPLES = """\
KEY=VALUE: as in normbench run

examples:
  normbench explain norm=batch batch_size=4
  normbench explain norm=batch model=cnn --layer conv2 --unit 3
  normbench explain norm=layer --worksheet --html worksheet.html
  normbench explain --run results/scratch/batch-mlp-mnist-1a2b3c4d
"""
STEPS = 200  # of training on the spot
USUAL = "batch_size=4"  # few enough to check by hand
BESIDES = ("batch_size", "data_dir", "device", "norm")  # what may be said of a run that is over
WIDTH = 96  # of the text
BLANK = "____"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench explain [KEY=VALUE ...] [--layer L] [--unit U] [--run RUN] [--worksheet | --json]"
    parser.usage += " [--html FILE]"
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("--layer", help="a block, as normbench describe names it; default: the first")
    parser.add_argument("--unit", type=int, default=0, help="which unit or channel of it, from 0; default: 0")
    add_config_dir(parser)
    parser.add_argument("--run", type=path, help="the folder of a finished run, whose network is explained")
    parser.add_argument("--html", type=path, metavar="FILE", help="write the text as a page, too")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--worksheet", action="store_true", help="leave blanks for what is calculated; a key follows")
    how.add_argument("--json", action="store_true", help="every number, unrounded")


def run(options: argparse.Namespace) -> int:
    """Explain one unit of one layer. Writes nothing. Returns 0. Raises UserError."""
    words, dirs = options.words, options.config_dir
    if options.run is None:
        subject = trained_subject([*(f"--config-dir={folder}" for folder in dirs), *words])
    else:
        subject = _of_run(options.run, words, dirs)
    if subject is None:
        return 0
    from normbench.explain.engine import explanation

    steps, facts = explanation(subject, options.layer, options.unit)
    if options.json:
        print(json.dumps({**facts, "steps": [asdict(step) for step in steps]}, indent=1, allow_nan=False))
        return 0
    console.out.record = options.html is not None
    print_explanation(steps, facts, options.worksheet)
    if options.html:
        try:
            console.out.save_html(str(options.html))
        except OSError as error:
            raise UserError(f"{options.html} can't be written: {error}.") from error
    return 0


def trained_subject(words: Sequence[str]) -> Subject | None:
    """The network of `words`, trained for 200 steps as a run in a folder that is removed again.

    None where only the configuration was asked for, which is printed. Raises UserError.
    """
    from normbench.experiment import expand, prepare_run, train

    words = [*(word for word in words if not word.startswith("instruments")), "instruments=none"]
    if not any(word.startswith(("batch_size=", "experiment=")) for word in words):
        words += [USUAL]
    found = expand(words)
    if found.printed is not None:
        print(found.printed, end="")
        return None
    if found.is_sweep:
        raise ConfigError("explain looks at one network: leave out -m, and give each option one value.")
    [run_config] = found.run_configs
    with TemporaryDirectory() as results:
        steps = run_config.config["max_steps"] or STEPS
        own = {"max_steps": steps, "evaluations": 1, "save_model": True, "results_dir": results}
        ready = prepare_run(replace(run_config, config=run_config.config | own))
        done = train(ready)
        if done.status == "diverged":
            raise UserError(
                f"the network diverged within {steps} steps: its loss is no longer finite. Use a smaller lr."
            )
        dirs = [Path(flag.partition("=")[2]) for flag in run_config.flags]
        return _subject(load_trained(done.folder, config_dirs=dirs), f"trained for {steps:,} steps")


def _of_run(folder: Path, words: Sequence[str], config_dirs: Sequence[Path]) -> Subject:
    """The network that a run has trained; nothing in its folder changes. Raises UserError."""
    from normbench.experiment import build, check_supported

    choices, config = require_complete(folder).choices, dict[str, Any]()
    for word in words:
        key, _, value = word.partition("=")
        if key not in BESIDES:
            raise UserError(
                f"with --run, the network is the run's: only {', '.join(BESIDES)} can be given: got {word}."
            )
        if key == "norm" and value != choices["norm"]:
            raise UserError(f"{folder} is a run of norm={choices['norm']}: got norm={value}. Leave it out.")
        if key != "norm":
            config[key] = value
    size = config.setdefault("batch_size", "4")
    if not size.isdecimal() or int(size) < 1:
        raise UserError("batch_size must be a whole number, 1 or more.")
    trained = load_trained(folder, {"device": "auto", **config, "batch_size": int(size)}, True, config_dirs)
    check_supported(trained.config, build(trained.config), trained.dataset.shape, len(trained.dataset.classes))
    kind = "" if trained.statistics == "ema" else f", norm.statistics={trained.statistics}"
    return _subject(trained, f"as trained in {folder}{kind}")


def _subject(trained: Trained, how: str) -> Subject:
    """The network on the CPU, with the first images of the training split."""
    import torch

    from normbench.explain.place import Subject
    from normbench.noise import key_of

    choices, train, few = trained.run.choices, trained.dataset.train, trained.config["batch_size"]
    if few > len(train):
        raise UserError(f"batch_size must be at most the {len(train):,} training images: got {few}.")
    key = key_of(0, 0, "augment", trained.device)  # of augmentation, where there is some
    places = torch.arange(few, device=trained.device)
    images, labels = (tensor.cpu() for tensor in train.batch(places, key))
    model = trained.model.cpu()
    return Subject(model, choices["norm"], console.title(choices), how, images, labels)


def print_explanation(
    steps: Sequence[Step], facts: Mapping[str, Any], worksheet: bool, to: Console | None = None
) -> None:
    """The whole calculation, or a worksheet with a key; `to`: standard output, or another console."""
    to = to or console.out
    console.say(facts["network"], to)
    console.say(facts["where"], to, WIDTH)
    for number, step in enumerate(steps, start=1):
        _heading(f"{number}. {step.title}", to)
        for line in step.formula.splitlines():
            console.say(f"    {line}", to, WIDTH)
        console.say(step.words, to, WIDTH)
        to.print(console.make_table(step.columns, cells(step, blank=worksheet)))
    if worksheet:
        _heading("Key", to)
        for number, step in enumerate(steps, start=1):
            if step.asked:
                console.say(f"\n{number}. {step.title}", to)
                to.print(console.make_table(step.columns, cells(step)))


def _heading(text: str, to: Console) -> None:
    to.print(f"\n{text}", style="bold", markup=False, highlight=False, soft_wrap=True)


def cells(step: Step, blank: bool = False) -> list[list[str]]:
    """The texts of the table's rows, on a worksheet (`blank`) with blanks for what is asked."""
    asked = [blank and column in step.asked for column in step.columns]
    return [
        [
            BLANK if is_asked and row[0] not in step.given and isinstance(value, float) else _text(value)
            for is_asked, value in zip(asked, row, strict=True)
        ]
        for row in step.rows
    ]


def _text(value: str | float) -> str:
    """A cell of a table: 4 decimals; of very small and large numbers, their digits that count."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.4g}" if abs(value) < 1 else f"{value:,.1f}"
