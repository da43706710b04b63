"""One run from start to summary: the one place that knows training, instruments and files."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from normbench.cell import Cell, ConfigError, Parts
from normbench.config import build
from normbench.data import DataError, Dataset, default_data_dir, prepare
from normbench.models import require_method
from normbench.norms import Unsupported
from normbench.provenance import provenance
from normbench.runs import SCHEMA_VERSION, Run, RunFolder
from normbench.trainer import Tell, Training

KEPT = 2  # data sets stay loaded for the next run in this process: a sweep has few, and each start checks all bytes
_datasets: dict[str, Dataset] = {}
PREPARED = ("name", "validation", "split_seed", "train_fraction", "scale")  # options of every data set


def load_dataset(config: Mapping[str, Any], parts: Parts) -> Dataset:
    """The run's data, on its device. Raises ConfigError where they can't be had or the splits make no sense."""
    key = json.dumps([config["dataset"], config["data_dir"], config["device"]])
    if key not in _datasets:
        options = {k: v for k, v in config["dataset"].items() if k in PREPARED}
        folder = Path(config["data_dir"]).expanduser() if config["data_dir"] else default_data_dir()
        try:
            _datasets[key] = prepare(parts.source(folder), **options, device=config["device"])
        except DataError as error:
            raise ConfigError(str(error)) from error
        if len(_datasets) > KEPT:
            del _datasets[next(iter(_datasets))]
    return _datasets[key]


def total_steps(config: Mapping[str, Any], examples: int) -> int:
    """How many updates the budget (steps, samples or epochs) comes to. Raises ConfigError if a batch is too large."""
    batch_size = config["batch_size"]
    if batch_size > examples:
        raise ConfigError(f"batch_size must be at most the {examples:,} training images: got {batch_size}.")
    if config["max_steps"] is not None:
        return config["max_steps"]
    if config["max_samples"] is not None:
        return config["max_samples"] // batch_size
    return max(1, math.floor(config["epochs"] * (examples // batch_size)))


def check_supported(config: Mapping[str, Any], parts: Parts, shape: tuple[int, int, int], classes: int) -> None:
    """Can this network be built and trained at this batch size? Runs one batch without numbers, in milliseconds.

    Raises:
        Unsupported: the scheme can't do it.
        ConfigError: it can't be built at all.
    """
    with torch.device("meta"):
        try:
            require_method(config["model"]["init"])
            model = parts.model(parts.scheme, shape, classes).train()
            model(torch.empty(config["batch_size"], *shape))
        except Unsupported:
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(str(error)) from error


@dataclass(frozen=True)
class Prepared:
    """A cell that was looked at and can be run."""

    cell: Cell
    parts: Parts
    dataset: Dataset
    total: int  # updates


def prepare_cell(cell: Cell) -> Prepared:
    """Build the parts of `cell`, load its data, and make sure that it can be trained. Writes nothing.

    Raises:
        ConfigError: it can't be run as asked.
        Unsupported: its scheme can't train its network at its batch size.
    """
    parts = build(cell.config)
    dataset = load_dataset(cell.config, parts)
    total = total_steps(cell.config, len(dataset.train))
    check_supported(cell.config, parts, dataset.shape, len(dataset.classes))
    return Prepared(cell, parts, dataset, total)


def execute(cell: Cell, tell: Tell = lambda progress: None) -> Run:
    """Train `cell` to its end, or continue it, or find it finished.

    Raises:
        ConfigError, Unsupported: as `prepare_cell`; nothing was written.
        Locked: another process is at it.
        Exception: whatever went wrong in training; it is in `error.json`, too.
    """
    if cell.finished:
        return Run(cell.folder)
    return train(prepare_cell(cell), tell)


def train(ready: Prepared, tell: Tell = lambda progress: None) -> Run:
    """As `execute`, for a cell that was prepared."""
    cell = ready.cell
    torch.set_num_threads(cell.config["threads"])
    columns = dict.fromkeys(name for instrument in ready.parts.instruments for name in instrument.columns)
    with RunFolder(cell.folder, list(columns)) as folder:
        if not cell.finished:  # another process may have finished it meanwhile
            try:
                Training(cell, ready.parts, ready.dataset, ready.total, folder, tell).run(record(cell))
            except Exception as error:
                folder.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
                raise
    return Run(cell.folder)


def record_unsupported(cell: Cell, reason: str) -> None:
    """Give a cell of a study that can't be run its folder, so that no table passes over it in silence."""
    with RunFolder(cell.folder, []) as folder:
        folder.start(record(cell))
        folder.finish({"status": "unsupported", "reason": reason})


def record(cell: Cell) -> dict[str, Any]:
    """What a run's config.yaml holds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": cell.name,
        "command": " ".join(["normbench run", *cell.words]),
        "overrides": cell.words,
        "choices": cell.choices,
        "identity": cell.identity,
        "config": cell.config,
        **provenance(),
    }
