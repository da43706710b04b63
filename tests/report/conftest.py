"""Studies written through `RunFolder`, so that what is read here is what a training writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normbench.runs import SCHEMA_VERSION, RunFolder

ACTIVATIONS = ("way", "unit", "count", "mean", "std", "skew", "p01", "p15", "p50", "p85", "p99")
SHIFT = ("way", "since", "w1_scaled_mean", "moved_scaled_mean", "drift_scaled_mean")
CONFIG = {"optimizer": "adam", "lr": 0.001, "weight_decay": 0.0, "batch_size": 64, "epochs": 1.0, "max_steps": None}
CHECKSUM = "c0ffee" + "0" * 58


def write_run(
    study: Path,
    norm: str = "batch",
    model: str = "mlp",
    dataset: str = "mnist",
    status: str = "complete",
    accuracy: float = 0.9,
    curve: tuple[float, ...] = (0.1, 0.8, 0.9),
    layers: dict[str, list[tuple[float, ...]]] | None = None,
    checksum: str = CHECKSUM,
    summary: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """One run's folder.

    Args:
        status: complete | diverged | unsupported | failed | interrupted.
        curve: validation accuracy at equally spaced evaluations, 1,000 images apart.
        layers: "layer/tensor" -> percentiles 1, 15, 50, 85, 99 at steps 0, 1, 10, 100 ...
        summary: replaces numbers of the summary.
        options: options inside the groups, "norm.groups" -> 2.
        config: settings at top level, such as `batch_size` and `seed`.
    """
    choices = {"norm": norm, "model": model, "dataset": dataset, "instruments": "standard"}
    groups: dict[str, Any] = {group: {"name": choice} for group, choice in choices.items()}
    for key, value in (options or {}).items():
        group, _, option = key.partition(".")
        groups[group][option] = value
    values = {**CONFIG, "seed": 0, "study": study.name, **config}
    overrides = [f"norm={norm}", f"model={model}"] + [f"{k}={v}" for k, v in {**config, **(options or {})}.items()]
    words = [model, norm, dataset, *(f"{k}{v}" for k, v in {**config, **(options or {})}.items())]
    path = study / "-".join(words).replace("/", "_")
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": path.name,
        "choices": choices,
        "config": {**groups, **values},
        "versions": {"normbench": "0.1.0", "python": "3.12.1", "torch": "2.6.0"},
        "git_commit": "abc1234",
        "machine": {"system": "Linux", "cpus": 2},
        "overrides": overrides,
    }
    with RunFolder(
        path, {"activations": ACTIVATIONS, "shift": SHIFT, "batch_noise": ("lower", "noise_mean")}
    ) as folder:
        folder.start(record)
        if status == "unsupported":
            folder.finish({"status": status, "reason": "BatchNorm needs two values per feature to train."})
            return path
        for index, value in enumerate(curve):
            position = {"step": 10 * index, "samples": 1000 * index, "epoch": index / 50, "train_seconds": float(index)}
            folder.epochs.append([position | {"validation_loss": 1 - value, "validation_accuracy": value}])
            folder.steps.append([position | {"loss": 1 - value}])
        for name, snapshots in (layers or {}).items():
            layer, _, tensor = name.partition("/")
            for index, percentiles in enumerate(snapshots):
                step = 10 ** (index - 1) if index else 0
                row = {"step": step, "layer": layer, "tensor": tensor, "way": "probe", "count": 100}
                values = dict(zip(ACTIVATIONS[6:], percentiles, strict=True))
                units = [row | values | {"unit": unit, "p50": unit * index} for unit in range(5)]
                folder.measured["activations"].append([row | values, *units])
                shift = {key: row[key] for key in ("step", "layer", "tensor", "way")}
                for since, numbers in (("start", (0.1 * index, 0.2 * index, 0.05 * index)), ("halves", (0.02,))):
                    named = dict(zip(SHIFT[2:], numbers, strict=False))
                    folder.measured["shift"].append([shift | {"since": since} | named])
            for lower in ("population", "training"):
                noise = {"step": 10, "layer": layer, "tensor": tensor, "lower": lower, "noise_mean": 0.1}
                folder.measured["batch_noise"].append([noise])
        if status == "failed":
            folder.fail("out of memory", "Traceback ...")
        if status in ("complete", "diverged"):
            diverged = status == "diverged"
            numbers = {
                "status": status,
                "steps": 100,
                "samples": 6400,
                "epoch": 1.0,
                "diverged_step": 350 if diverged else None,
                "train_loss": None if diverged else 1 - accuracy,
                "validation_loss": None if diverged else 0.3,
                "validation_accuracy": None if diverged else accuracy - 0.01,
                "test_loss": None if diverged else 0.3,
                "test_accuracy": None if diverged else accuracy,
                "at_chance": False,
                "parameters": 89610,
                "dataset": {
                    "name": dataset,
                    "checksum": checksum,
                    "train": 55000,
                    "validation": 5000,
                    "test": 10000,
                    "classes": 10,
                    "synthetic": dataset == "synthetic",
                },
                "seconds": {"training": 10.0, "evaluating": 1.0, "measuring": 2.0, "total": 13.0},
                "measured": {"shift": {"hidden1": 0.5}},
            }
            folder.finish(numbers | (summary or {}))
    return path


@pytest.fixture(scope="session")
def writer() -> Callable[..., Path]:
    return write_run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An empty study."""
    path = tmp_path / "results" / "first"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def add(study: Path) -> Callable[..., Path]:
    """`add(norm="batch", seed=1, accuracy=0.9)` writes one run into `study`."""
    return lambda **settings: write_run(study, **settings)
