"""`normbench evaluate`: a trained network on a test set, with each kind of statistics and at any batch size."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.commands import evaluate_corrupted
from normbench.commands.parsing import Parser
from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.commands.trained import Trained
    from normbench.data import Dataset

KEYS = ("norm.statistics", "batch_size", "images", "dataset", "data_dir", "device", *evaluate_corrupted.KEYS)
HELP = """\
KEY=VALUE:
  norm.statistics=ema,precise   which kinds: ema, cumulative, averages, precise, batch; left out, all that can be had
  batch_size=1,64               test images that go through together; default: the batch size of the run
  images=10000                  training images that averages and precise are taken from; default: all
  dataset=... dataset.KEY=...   the test set of another data set, as in normbench run
"""
HELP += evaluate_corrupted.HELP
ERRORS = (
    "\nerror of the statistics, against those of {count:,} training images in float64: of the mean, in standard "
    "deviations (root mean square over units); variance over the exact one (mean over units)"
)
BIASED = """\
averages is biased behind the first norm, as ema and cumulative are: the images of a mini-batch are coupled there. The
mean over mini-batches of a non-linear function of their statistics is not that function of their mean."""
BIASED_VARIANCE = """\
And what was standardised has variance 1 divided by m already, so that m/(m-1) makes it too large. ±: standard error."""


def _parser() -> Parser:
    parser = Parser(
        prog="normbench evaluate",
        usage="normbench evaluate RUN [KEY=VALUE ...] [--json]",
        description="A trained network on the test set, with each kind of statistics. Nothing in the run changes.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="a finished run: results/<study>/<run>")
    parser.add_argument("--json", action="store_true", help="every number, unrounded")
    parser.add_argument("--config-dir", metavar="DIR", help="with your own data sets, as in normbench run")
    return parser


@dataclass(frozen=True)
class Asked:
    """What the words say. Each of `sizes` and `kinds` gets a row; without `kinds`, all that the network can do."""

    folder: Path
    kinds: list[str] | None
    sizes: list[str] | None
    images: str | None
    places: dict[str, str]  # data_dir, device
    dataset: list[str]  # words about another one, --config-dir included
    corruption: dict[str, str]
    as_json: bool


def main(words: Sequence[str]) -> int:
    """`normbench evaluate WORDS`. Writes nothing. Returns 0. Raises UserError."""
    asked = _read(words)
    from normbench.commands.trained import load_trained, require_complete

    require_complete(asked.folder)  # before torch is imported, which takes seconds
    trained = load_trained(asked.folder, asked.places, own=False)
    dataset = _other(trained, asked) if asked.dataset else trained.dataset
    if corruption := asked.corruption:
        found = evaluate_corrupted.measured(trained, dataset, corruption)
    else:
        found = _measured(trained, dataset, asked)
    if asked.as_json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        (evaluate_corrupted.show if corruption else _print)(found)
    return 0


def _read(words: Sequence[str]) -> Asked:
    given = _parser().parse_intermixed_args(list(words))
    folders = [word for word in given.words if "=" not in word or Path(word).is_dir()]
    if len(folders) != 1:
        raise UserError(f"evaluate needs one run, results/<study>/<run>: got {', '.join(folders) or 'none'}.")
    options = dict(word.split("=", 1) for word in given.words if word not in folders)
    for key in options:
        if key not in KEYS and not key.startswith("dataset."):
            raise UserError(f"the network is the run's: only {', '.join(KEYS)} can be given: got {key}.")
    dataset = [f"{key}={value}" for key, value in options.items() if key.startswith("dataset")]
    if dataset and given.config_dir:
        dataset += ["--config-dir", given.config_dir]
    kinds, sizes = (options[key].split(",") if key in options else None for key in ("norm.statistics", "batch_size"))
    places = {key: options[key] for key in ("data_dir", "device") if key in options}
    corruption = {key: options[key] for key in evaluate_corrupted.KEYS if key in options}
    if corruption:
        instead = {"norm.statistics": kinds, "batch_size": sizes, "images": options.get("images")}
        evaluate_corrupted.check(corruption, instead)
    return Asked(Path(folders[0]), kinds, sizes, options.get("images"), places, dataset, corruption, given.json)


def _other(trained: Trained, asked: Asked) -> Dataset:
    """The data set that the words name, or the run's with other options. Raises UserError if it does not fit."""
    from normbench.config import app
    from normbench.experiment import build, load_dataset

    own = [word for word in trained.run.record["overrides"] if word.startswith("dataset")]
    named = any(word.startswith("dataset=") for word in asked.dataset)
    cells, _ = app.cells("evaluate", asked.dataset if named else [*own, *asked.dataset])
    places = {key: trained.config[key] for key in ("data_dir", "device")}
    found, wanted = load_dataset({**cells[0].config, **places}, build(cells[0].config)), trained.dataset
    if (found.shape, len(found.classes)) != (wanted.shape, len(wanted.classes)):
        shapes = [f"{' x '.join(map(str, d.shape))} in {len(d.classes)} classes" for d in (wanted, found)]
        raise UserError(
            f"the data set must be of the shape that the run was trained on, {shapes[0]}: "
            f"got {found.name}, {shapes[1]}. Use {wanted.name}, or another run."
        )
    return found


def _measured(trained: Trained, dataset: Dataset, asked: Asked) -> dict[str, Any]:
    """Every number, as plain values. Raises UserError for what this network can't do."""
    from normbench.norms import KINDS
    from normbench.training.evaluation import Statistics, evaluate_with, fits, possible
    from normbench.training.summary import finite

    model, train, size = trained.model, trained.dataset.train, trained.run.config["batch_size"]
    sizes = [_number("batch_size", n, 1, len(dataset.test), "test") for n in asked.sizes or [str(size)]]
    count = _number("images", asked.images or str(len(train)), max(2, size), len(train), "training")
    able = possible(model)
    if not able:
        why = dict.fromkeys(KINDS, f"norm={trained.run.choices['norm']} keeps no statistics of batches.")
    else:
        why = {kind: "the norms of this network keep no plain average." for kind in KINDS if kind not in able}
    small = [n for n in sizes if not fits(model, dataset.test, n)]
    if small:
        why.setdefault("batch", "it needs two values per unit: got a batch of 1. Use batch_size=2 or more.")
    for kind in asked.kinds or ():
        if kind not in KINDS:
            raise UserError(f"norm.statistics is one of {', '.join(KINDS)}: got {kind}.")
        if kind in why:
            raise UserError(f"norm.statistics={kind} can't be had here: {why[kind]}")
    kinds = [kind for kind in asked.kinds or able if kind not in why or (kind == "batch" and len(small) < len(sizes))]
    found = Statistics(model, [kind for kind in kinds if kind != "batch"], train, size, count)
    rows = [(kind, found.found.get(kind, {})) for kind in kinds] or [("none", {})]
    return {
        "run": trained.run.folder.name,
        "dataset": dataset.name,
        "training_images": count,
        "evaluations": [
            finite(asdict(evaluate_with(model, kind, statistics, dataset.test, n)))
            for kind, statistics in rows
            for n in sizes
            if kind != "batch" or n not in small
        ],
        "errors": [finite(asdict(error)) for error in found.errors()],
        "not_possible": why if asked.kinds is None else {},
    }


def _number(key: str, text: str, least: int, most: int, what: str) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UserError(f"{key} must be a whole number from {least} to {most:,}, the {what} images: got {text}.")
    return int(text)


def _print(found: dict[str, Any]) -> None:
    from normbench.commands import console

    console.say(f"{found['run']} on {found['dataset']}")
    table = console.plain_table()
    for column in ("statistics", "batch size", "test images", "accuracy %", "loss"):
        table.add_column(column, justify="left" if column == "statistics" else "right")
    for e in found["evaluations"]:
        numbers = str(e["batch_size"]), f"{e['images']:,}", f"{100 * e['accuracy']:.2f}", f"{e['loss']:.4f}"
        table.add_row(e["statistics"], *numbers)
    console.out.print(table)
    for reason in dict.fromkeys(found["not_possible"].values()):
        without = ", ".join(kind for kind, why in found["not_possible"].items() if why == reason)
        console.say(f"without {without}: {reason}")
    errors = {(e["norm"], e["statistics"]): e for e in found["errors"]}
    kinds = list(dict.fromkeys(kind for _, kind in errors))
    if not kinds:
        return
    console.say(ERRORS.format(count=found["training_images"]))
    table = console.plain_table()
    for column in ("norm", *kinds):
        table.add_column(column)
    for norm in dict.fromkeys(norm for norm, _ in errors):
        table.add_row(norm, *(_error(errors[norm, kind]) if (norm, kind) in errors else "" for kind in kinds))
    console.out.print(table)
    if "averages" in kinds and len({norm for norm, _ in errors}) > 1:
        console.say(BIASED)
        if any(e["noise"] is not None for e in found["errors"]):
            console.say(BIASED_VARIANCE)


def _error(error: dict[str, Any]) -> str:
    ratio = "" if error["var_ratio"] is None else f"  {error['var_ratio']:.4f}"
    return f"{error['mean_error']:.1e}{ratio}" + ("" if error["noise"] is None else f" ± {error['noise']:.4f}")
