"""`normbench evaluate RUN corruption=...`: a trained network on corrupted test images, and how far its layers move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.commands.trained import Trained
    from normbench.data import Dataset

KEYS = ("corruption", "corruption.severity", "corruption.images")
HELP = """\
  corruption=noise,blur         corrupt the test images: contrast, brightness, noise, blur, rotate, invert
  corruption.severity=1,3       of 1 to 5; left out, all
  corruption.images=64          corrupted images that statistics are re-estimated with; left out, 16, 64, 256 and 1024
"""
PROBE = 256  # images of each kind whose values are compared, as many as instruments look at
INTERNAL = "internal covariate shift: over training, the same images"


def check(options: Mapping[str, str], others: Mapping[str, Any]) -> None:
    """Refuse words that make no sense, before torch is imported. Raises UserError."""
    if "corruption" not in options:
        raise UserError(f"{next(iter(options))} says how images are corrupted: give corruption=noise, or another, too.")
    for key, value in others.items():
        if value:
            raise UserError(f"{key} and corruption can't be given together: leave one of them out.")


def measured(trained: Trained, dataset: Dataset, options: Mapping[str, str]) -> dict[str, Any]:
    """Every number, as plain values. Raises UserError for unknown corruptions, severities and numbers of images."""
    import torch

    from normbench.instruments import Probe
    from normbench.instruments.train_test_shift import IMAGES, compare, conditions
    from normbench.training.summary import finite

    test, model = dataset.test, trained.model
    severities = [int(n) if n.isdecimal() else n for n in options.get("corruption.severity", "1,2,3,4,5").split(",")]
    try:
        wanted = conditions(options["corruption"].split(","), severities)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from error
    most = len(test) // 2
    counts = [n for n in IMAGES if n <= most]
    if given := options.get("corruption.images"):
        if not all(n.isdecimal() and 2 <= int(n) <= most for n in given.split(",")):
            half = "half of the test images"
            raise UserError(f"corruption.images must be a whole number from 2 to {most:,}, {half}: got {given}.")
        counts = sorted({int(n) for n in given.split(",")})
    places = torch.arange(min(PROBE, len(test)), device=trained.device)
    probe = Probe(model, *test.batch(places), trained.run.config["batch_size"])
    rows = list(compare(model, probe, trained.dataset.train, test, wanted, counts, len(test)))
    about = ("corruption", "severity", "statistics", "images")
    return {
        "run": trained.run.folder.name,
        "dataset": dataset.name,
        "test_images": len(test) - max(counts, default=0),
        "evaluations": [
            finite({key: row.get(key) for key in (*about, "loss", "accuracy")}) for row in rows if not row["layer"]
        ],
        "internal_shift": (trained.run.summary.get("measured") or {}).get("shift"),
        "train_test_shift": [
            finite({key: row.get(key) for key in (*about, "layer", "units", "w1_scaled_mean")})
            for row in rows
            if row["tensor"] == "input"
        ],
    }


def show(found: dict[str, Any]) -> None:
    from normbench.commands import console

    console.say(f"{found['run']} on {found['dataset']}: accuracy (%) on {found['test_images']:,} test images")
    accuracies: dict[str, dict[int, float]] = {}
    for e in found["evaluations"]:
        accuracies.setdefault(_named(e), {})[e["images"] or 0] = e["accuracy"]
    counts = sorted({n for of_one in accuracies.values() for n in of_one})
    table = console.plain_table()
    table.add_column("corruption, severity")
    for n in counts:
        table.add_column(f"re-estimated, n={n:,}" if n else "statistics from training", justify="right")
    for name, of_one in accuracies.items():
        table.add_row(name, *(f"{100 * of_one[n]:.2f}" for n in counts))
    console.out.print(table)
    if len(counts) > 1:
        console.say("re-estimated: statistics of n other test images, unlabelled, with the same corruption")
    else:
        console.say("nothing re-estimated: that takes a norm that keeps statistics of batches, and 32 test images")
    console.say(
        "\nhow far the input of each layer has moved: Wasserstein-1, mean over units, in standard deviations of a unit"
    )
    layers = list(dict.fromkeys(row["layer"] for row in found["train_test_shift"]))
    table = console.plain_table()
    table.add_column("shift")
    for layer in layers:
        table.add_column(layer, justify="right")
    if internal := found["internal_shift"]:
        table.add_row(INTERNAL, *(_number(0.0 if layer == layers[0] else internal.get(layer)) for layer in layers))
    shifts: dict[str, dict[str, float | None]] = {}
    for row in found["train_test_shift"]:
        name = _named(row) + (f", re-estimated, n={row['images']:,}" if row["images"] else "")
        shifts.setdefault(f"train-test: {name}", {})[row["layer"]] = row["w1_scaled_mean"]
    for name, by_layer in shifts.items():
        table.add_row(name, *(_number(by_layer.get(layer)) for layer in layers))
    console.out.print(table)
    if not internal:
        console.say("internal covariate shift, over training: not measured; the instrument shift supplies it")


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['corruption']} {row['severity']}" if row["severity"] else "uncorrupted"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
