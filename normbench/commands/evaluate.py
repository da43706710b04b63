"""`normbench evaluate`: a trained network on a test set, with each kind of statistics and at any batch size; or on
corrupted test images, and how far its layers move there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.commands import console
from normbench.commands.arguments import add_config_dir
from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.commands.trained import Trained
    from normbench.data import Split

CORRUPTION = ("corruption", "corruption.severity", "corruption.images")
KEYS = ("norm.statistics", "batch_size", "images", "dataset", "data_dir", "device", *CORRUPTION)
HELP = """\
KEY=VALUE:
  norm.statistics=ema,precise   which kinds: ema, averages, precise, evalnorm, batch; left out, all
  batch_size=1,64               test images that go through together; default: the batch size of the run
  images=10000                  training images that averages and precise are taken from; default: all
  dataset=... dataset.KEY=...   the test set of another data set, as in normbench run
  corruption=noise,blur         corrupt the test images: contrast, brightness, noise, blur, rotate, invert
  corruption.severity=1,3       of 1 to 5; left out, all
  corruption.images=64          corrupted images that statistics are re-estimated with; left out, 16, 64, 256 and 1024
"""
ERRORS = (
    "\nerror of the statistics, against those of {count:,} training images in float64: of the mean, in standard "
    "deviations (root mean square over units); variance over the exact one (mean over units)"
)
BIASED = """\
averages is biased behind the first norm, as ema is: the images of a mini-batch are coupled there. The
mean over mini-batches of a non-linear function of their statistics is not that function of their mean."""
BIASED_VARIANCE = """\
And what was standardised has variance 1 divided by m already, so that m/(m-1) makes it too large. ±: standard error."""
MOVED = "\nhow far the input of each layer has moved: Wasserstein-1, mean over units, in standard deviations of a unit"
PROBE = 256  # images of each kind whose values are compared, as many as instruments look at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench evaluate RUN [KEY=VALUE ...] [--json]"
    parser.description = "A trained network on the test set, with each kind of statistics. Nothing in the run changes."
    parser.epilog = HELP
    parser.add_argument("--json", action="store_true", help="every number, unrounded")
    add_config_dir(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate the network of one run. Writes nothing. Returns 0. Raises UserError."""
    from normbench.commands.trained import load_trained, require_complete

    folder, given = _parse(options.words)
    require_complete(folder)  # before torch is imported, which takes seconds
    places = {key: value for key, value in given.items() if key in ("data_dir", "device")}
    trained = load_trained(folder, places, own_statistics=False, config_dirs=options.config_dir)
    name, test = _test_images(trained, given, options.config_dir)
    corrupted = "corruption" in given
    found = (_on_corrupted_images if corrupted else _with_statistics)(trained, test, given)
    found = {"run": trained.run.folder.name, "dataset": name, **found}
    if options.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        (_print_corrupted if corrupted else _print_statistics)(found)
    return 0


def _parse(words: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The run's folder, and the values by key. Raises UserError."""
    folders = [word for word in words if "=" not in word or Path(word).is_dir()]
    if flags := [word for word in folders if word.startswith("-")]:
        raise UserError(f"unrecognized arguments: {' '.join(flags)}. See normbench evaluate --help.")
    if len(folders) != 1:
        raise UserError(f"evaluate needs one run, results/<study>/<run>: got {', '.join(folders) or 'none'}.")
    given = dict(word.split("=", 1) for word in words if word not in folders)
    for key in given:
        if key not in KEYS and not key.startswith("dataset."):
            raise UserError(f"the network is the run's: only {', '.join(KEYS)} can be given: got {key}.")
    if asked := [key for key in CORRUPTION if key in given]:
        if "corruption" not in given:
            raise UserError(f"{asked[0]} says how images are corrupted: give corruption=noise, or another, too.")
        for key in ("norm.statistics", "batch_size", "images"):
            if key in given:
                raise UserError(f"{key} and corruption can't be given together: leave one of them out.")
    return Path(folders[0]), given


def _test_images(trained: Trained, given: Mapping[str, str], config_dirs: Sequence[Path]) -> tuple[str, Split]:
    """The test images of the run's data set, or of what the words name, and its name; standardised and whitened by the
    run's training images, whatever they are of. Only options that the words name differ from the run's.

    Raises: UserError.
    """
    from normbench.data import split_for_testing
    from normbench.experiment import build, compose, load_dataset, load_source

    own, words = trained.dataset, [f"{key}={value}" for key, value in given.items() if key.startswith("dataset")]
    if not words:
        return own.name, own.test
    if "dataset" not in given:
        words = [word for word in trained.run.words if word.startswith("dataset")] + words
    run_config = compose([*words, *(f"--config-dir={folder}" for folder in config_dirs)])
    config = {**run_config.config, **{key: trained.config[key] for key in ("data_dir", "device")}}
    options, found = config["dataset"], load_source(config, build(config))
    if (shape := found.test_images.shape[1:]) != own.shape or len(found.classes) != len(own.classes):
        sizes = ((own.shape, own.classes), (shape, found.classes))
        wanted, got = (f"{' x '.join(map(str, shape))} in {len(classes)} classes" for shape, classes in sizes)
        raise UserError(
            f"the data set must be of the shape that the run was trained on, {wanted}: "
            f"got {options['name']}, {got}. Use {own.name}, or another run."
        )
    if classes := [f"{one} is {other}" for one, other in zip(own.classes, found.classes, strict=True) if one != other]:
        raise UserError(
            f"the data set must have the classes that the run was trained on: in {options['name']}, "
            f"{', '.join(classes[:4])}{' ...' if len(classes) > 4 else ''}. Rename its folders, or use another run."
        )
    if named := {key: options[key] for key in ("scale", "whiten", "binarize") if f"dataset.{key}" in given}:
        changed = {**trained.config, "dataset": {**trained.config["dataset"], **named}}
        own = load_dataset(changed, build(changed))
    return options["name"], split_for_testing(found.test_images, found.test_labels, own.test, options["split_seed"])


def _whole_number(key: str, text: str, least: int, most: int, what: str) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UserError(f"{key} must be a whole number from {least} to {most:,}, {what}: got {text}.")
    return int(text)


def _with_statistics(trained: Trained, test: Split, given: Mapping[str, str]) -> dict[str, Any]:
    """Loss and accuracy with each kind of statistics at each batch size, and the errors of the statistics.

    Raises: UserError for what this network can't do.
    """
    from normbench.experiment import finite
    from normbench.norms import KINDS
    from normbench.training.evaluation import Statistics, evaluate_with, possible_kinds, supports_batch

    model, train, size = trained.model, trained.dataset.train, trained.run.config["batch_size"]
    asked = given["norm.statistics"].split(",") if "norm.statistics" in given else None
    sizes = [
        _whole_number("batch_size", n, 1, len(test), "the test images")
        for n in given.get("batch_size", str(size)).split(",")
    ]
    images = given.get("images", str(len(train)))
    count = _whole_number("images", images, max(2, size), len(train), "the training images")
    able = possible_kinds(model)
    norm = f"norm={trained.run.choices['norm']}"
    lacks = (
        f"{norm} does not train with the statistics of each mini-batch alone."
        if able
        else f"{norm} keeps no statistics of batches."
    )
    why = {kind: lacks for kind in KINDS if kind not in able}
    small = [n for n in sizes if not supports_batch(model, test, n)]
    if small:
        why.setdefault("batch", "it needs two values per unit: got a batch of 1. Use batch_size=2 or more.")
    for kind in asked or ():
        if kind not in KINDS:
            raise UserError(f"norm.statistics is one of {', '.join(KINDS)}: got {kind}.")
        if kind in why:
            raise UserError(f"norm.statistics={kind} can't be had here: {why[kind]}")
    kinds = [kind for kind in asked or able if kind not in why or (kind == "batch" and len(small) < len(sizes))]
    of_batches = [kind for kind in kinds if kind != "batch"]
    found = Statistics(model, of_batches, train, size, count, trained.config["seed"])
    rows = [(kind, found.found.get(kind, {})) for kind in kinds] or [("none", {})]
    return {
        "training_images": count,
        "exact_images": found.exact_images,  # fewer where not all go through at once
        "evaluations": [
            finite(asdict(evaluate_with(model, kind, statistics, test, n, size)))
            for kind, statistics in rows
            for n in sizes
            if kind != "batch" or n not in small
        ],
        "errors": [finite(asdict(error)) for error in found.errors()],
        "not_possible": why if asked is None else {},
    }


def _print_statistics(found: dict[str, Any]) -> None:
    console.say(f"{found['run']} on {found['dataset']}")
    columns = ("statistics", "batch size", "test images", "accuracy %", "loss", "ECE %")
    rows = [
        (e["statistics"], e["batch_size"], f"{e['images']:,}", f"{100 * e['accuracy']:.2f}",
         "–" if e["loss"] is None else f"{e['loss']:.4f}", "–" if e["ece"] is None else f"{100 * e['ece']:.2f}")
        for e in found["evaluations"]
    ]  # fmt: skip
    console.print_table(columns, rows)
    console.say("loss: negative log likelihood; ECE: expected calibration error, 15 bins (Guo et al. 2017)")
    for reason in dict.fromkeys(found["not_possible"].values()):
        without = ", ".join(kind for kind, why in found["not_possible"].items() if why == reason)
        console.say(f"without {without}: {reason}")
    errors = {(e["norm"], e["statistics"]): e for e in found["errors"]}
    norms, kinds = (list(dict.fromkeys(key[i] for key in errors)) for i in (0, 1))
    if not kinds:
        return
    console.say(ERRORS.format(count=found["exact_images"]))
    cells = [(norm, *(_error(errors.get((norm, kind))) for kind in kinds)) for norm in norms]
    console.print_table(("norm", *kinds), cells, right=())
    if "averages" in kinds and len(norms) > 1:
        console.say(BIASED)
        if any(e["noise"] is not None for e in found["errors"]):
            console.say(BIASED_VARIANCE)


def _error(error: dict[str, Any] | None) -> str:
    if error is None:
        return ""
    ratio = "" if error["var_ratio"] is None else f"  {error['var_ratio']:.4f}"
    return f"{error['mean_error']:.1e}{ratio}" + ("" if error["noise"] is None else f" ± {error['noise']:.4f}")


def _on_corrupted_images(trained: Trained, test: Split, given: Mapping[str, str]) -> dict[str, Any]:
    """Loss and accuracy on corrupted test images, with statistics re-estimated too, and how far inputs of layers move.

    Raises: UserError for unknown corruptions, severities and numbers of images.
    """
    import torch

    from normbench.experiment import finite
    from normbench.instruments import Probe
    from normbench.instruments.train_test_shift import IMAGES, compare, conditions

    model = trained.model
    severities = [int(n) if n.isdecimal() else n for n in given.get("corruption.severity", "1,2,3,4,5").split(",")]
    try:
        wanted = conditions(given["corruption"].split(","), severities)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from error
    most = len(test) // 2
    counts = [n for n in IMAGES if n <= most]
    if asked := given.get("corruption.images"):
        about = ("corruption.images", 2, most, "half of the test images")
        counts = sorted({_whole_number(about[0], n, *about[1:]) for n in asked.split(",")})
    places = torch.arange(min(PROBE, len(test)), device=trained.device)
    probe = Probe(model, *test.batch(places), trained.run.config["batch_size"])
    seed = trained.run.config["seed"]
    rows = list(compare(model, probe, trained.dataset.train, test, wanted, counts, len(test), seed=seed))
    keys = ("corruption", "severity", "statistics", "images")
    return {
        "test_images": len(test) - max(counts, default=0),
        "evaluations": [
            finite({key: row.get(key) for key in (*keys, "loss", "accuracy")}) for row in rows if not row["layer"]
        ],
        "internal_shift": (trained.run.summary.get("measured") or {}).get("shift"),
        "train_test_shift": [
            finite({key: row.get(key) for key in (*keys, "layer", "units", "w1_scaled_mean")})
            for row in rows
            if row["tensor"] == "input"
        ],
    }


def _print_corrupted(found: dict[str, Any]) -> None:
    console.say(f"{found['run']} on {found['dataset']}: accuracy (%) on {found['test_images']:,} test images")
    accuracies: dict[str, dict[int, str]] = {}
    for e in found["evaluations"]:
        accuracies.setdefault(_condition(e), {})[e["images"] or 0] = f"{100 * e['accuracy']:.2f}"
    counts = sorted({n for of_one in accuracies.values() for n in of_one})
    names = [f"re-estimated, n={n:,}" if n else "statistics from training" for n in counts]
    rows = [(name, *(of_one[n] for n in counts)) for name, of_one in accuracies.items()]
    console.print_table(("corruption, severity", *names), rows)
    if len(counts) > 1:
        console.say("re-estimated: statistics of n other test images, unlabelled, with the same corruption")
    else:
        console.say("nothing re-estimated: that takes a norm that keeps statistics of batches, and 32 test images")
    console.say(MOVED)
    layers = list(dict.fromkeys(row["layer"] for row in found["train_test_shift"]))
    shifts: dict[str, dict[str, float | None]] = {}
    if internal := found["internal_shift"]:
        shifts["internal covariate shift: over training, the same images"] = internal | {layers[0]: 0.0}
    for row in found["train_test_shift"]:
        name = _condition(row) + (f", re-estimated, n={row['images']:,}" if row["images"] else "")
        shifts.setdefault(f"train-test: {name}", {})[row["layer"]] = row["w1_scaled_mean"]
    values = [(name, *(of_one.get(layer) for layer in layers)) for name, of_one in shifts.items()]
    texts = [("" if value is None else f"{value:.2f}" for value in row[1:]) for row in values]
    console.print_table(("shift", *layers), [(row[0], *text) for row, text in zip(values, texts, strict=True)])
    if not internal:
        console.say("internal covariate shift, over training: not measured; the instrument shift supplies it")


def _condition(row: Mapping[str, Any]) -> str:
    return f"{row['corruption']} {row['severity']}" if row["severity"] else "uncorrupted"
