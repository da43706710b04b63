"""One run from start to summary: the one place that knows training, instruments and files."""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normbench.config import compose
from normbench.config.compose import COMMON
from normbench.config.run_config import Parts, RunConfig, Stop, Tell
from normbench.config.schema import check_layers
from normbench.data import DataError, Dataset, default_data_dir, prepare
from normbench.errors import ConfigError, Stopped, Unsupported
from normbench.instruments.instrument import make_instruments
from normbench.instruments.measuring import bytes_at_most
from normbench.models import require_method
from normbench.norms import blocks
from normbench.norms.schemes import make_scheme
from normbench.runs import SCHEMA_VERSION, Locked, Run, RunFolder, Unwritable, is_finished
from normbench.training.memory import saved_for_backward, size
from normbench.training.perturbation import Perturbation
from normbench.training.provenance import provenance
from normbench.training.trainer import Training

KEPT = 2  # data sets stay loaded for the next run in this process: a sweep has few, and each start checks all bytes
_datasets: dict[str, Dataset] = {}


def build(config: Mapping[str, Any]) -> Parts:
    """The objects that a configuration names. Raises ConfigError if one can't be built."""
    found = compose.build(config)
    common = {key: value for key, value in config["norm"].items() if key in COMMON["norm"]}
    try:
        return Parts(
            scheme=make_scheme(found.norm, **common),
            model=found.model,
            source=found.dataset,
            instruments=make_instruments(found.instruments, config["instruments"]),
        )
    except (TypeError, ValueError) as error:  # a scheme says itself what it does not accept
        raise ConfigError(str(error)) from error


def load_dataset(config: Mapping[str, Any], parts: Parts) -> Dataset:
    """The run's data, on its device. Raises ConfigError where they can't be had or the splits make no sense."""
    key = json.dumps([config["dataset"], config["data_dir"], config["device"]])
    if key not in _datasets:
        options = {key: value for key, value in config["dataset"].items() if key in COMMON["dataset"]}
        folder = Path(config["data_dir"]).expanduser() if config["data_dir"] else default_data_dir()
        try:
            _datasets[key] = prepare(parts.source(folder), **options, device=config["device"], data_dir=folder)
        except DataError as error:
            raise ConfigError(str(error)) from error
        if len(_datasets) > KEPT:
            del _datasets[next(iter(_datasets))]
    return _datasets[key]


def total_steps(config: Mapping[str, Any], examples: int) -> int:
    """How many updates the budget (steps, samples or epochs) comes to. Raises ConfigError if a batch is too large."""
    per_update = config["batch_size"] * config["accumulate"]
    if per_update > examples:
        parts = f" x accumulate={config['accumulate']}" if config["accumulate"] > 1 else ""
        raise ConfigError(
            f"batch_size must be at most the {examples:,} training images: got {config['batch_size']}{parts}."
        )
    if config["max_steps"] is not None:
        return config["max_steps"]
    if config["max_samples"] is not None:
        return config["max_samples"] // per_update
    return max(1, math.floor(config["epochs"] * (examples // per_update)))


@dataclass(frozen=True)
class Trial:
    """What a batch without numbers told of a network.

    Args:
        model: on the device "meta".
        saved: bytes that a training step keeps for the backward pass.
    """

    model: nn.Module
    saved: int


def check_supported(config: Mapping[str, Any], parts: Parts, shape: tuple[int, int, int], classes: int) -> Trial:
    """Can this network be built and trained at this batch size? Runs one batch without numbers, in milliseconds.

    Raises:
        Unsupported: the scheme can't do it.
        ConfigError: it can't be built at all, a norm changes the shape of its input, or memory would not suffice.
    """
    with torch.device("meta"):
        try:
            options = config["model"]
            require_method(options["init"], options.get("init_std", 0.01), options.get("init_scale", 1.0))
            model = parts.model(parts.scheme, shape, classes).train()
            for name, block in blocks(model):
                norm = getattr(block, "norm", None)
                if norm is not None:
                    norm.register_forward_hook(partial(_require_same_shape, f"norm={parts.scheme.name}", name))
            saved = saved_for_backward(model, torch.empty(config["batch_size"], *shape))
        except Unsupported:
            raise
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(str(error)) from error
    need, free = size(model.parameters()) + saved, free_memory(config["device"])
    if need > free:
        raise ConfigError(
            f"one batch must fit into memory: it needs {need / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free. "
            "Use a smaller batch_size (with accumulate=, if the update shall stay the same), network or image."
        )
    return Trial(model, saved)


def _require_same_shape(scheme: str, block: str, norm: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if output.shape != inputs[0].shape:
        before, after = list(inputs[0].shape), list(output.shape)
        raise ValueError(f"{scheme}: a norm must keep the shape of its input: in {block}, {before} became {after}.")


def free_memory(device: str) -> int:
    """Bytes that could be had now: of the GPU, or of the machine; a great many where nobody tells."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # macOS
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Prepared:
    """A cell that was looked at and can be run."""

    cell: RunConfig
    parts: Parts
    dataset: Dataset
    total: int  # updates
    table_bytes: int  # that the instruments write, at most
    weight_bytes: int  # parameters and buffers
    saved_bytes: int  # that a step keeps for the backward pass


def prepare_cell(cell: RunConfig) -> Prepared:
    """Build the parts of `cell`, load its data, and make sure that it can be trained. Writes nothing.

    Raises:
        ConfigError: it can't be run as asked.
        Unsupported: its scheme can't train its network at its batch size.
    """
    parts = build(cell.config)
    dataset = load_dataset(cell.config, parts)
    total = total_steps(cell.config, len(dataset.train))
    trial = check_supported(cell.config, parts, dataset.shape, len(dataset.classes))
    check_layers(cell.config["instruments"].get("layers"), [name for name, _ in blocks(trial.model)])
    if (perturbation := Perturbation.of(cell.config)) is not None:
        perturbation.check(trial.model, total)
    table_bytes = bytes_at_most(parts.instruments, cell.config, trial.model, total)
    weights = size(chain(trial.model.parameters(), trial.model.buffers()))
    return Prepared(cell, parts, dataset, total, table_bytes, weights, trial.saved)


def execute(cell: RunConfig, tell: Tell = lambda progress: None, stop: Stop = lambda: False) -> Run:
    """Train `cell` to its end, or continue it, or find it finished.

    Raises:
        ConfigError, Unsupported: as `prepare_cell`; nothing was written.
        Locked: another process is at it.
        Stopped: `stop` said so.
        Exception: whatever went wrong in training; it is in `error.json`, too.
    """
    if is_finished(cell.folder):
        return Run(cell.folder)
    return train(prepare_cell(cell), tell, stop)


def train(ready: Prepared, tell: Tell = lambda progress: None, stop: Stop = lambda: False) -> Run:
    """As `execute`, for a cell that was prepared."""
    cell = ready.cell
    torch.set_num_threads(cell.config["threads"])
    columns = {instrument.name: instrument.columns for instrument in ready.parts.instruments}
    with RunFolder(cell.folder, columns, ready.dataset.checksum) as folder:
        if not is_finished(cell.folder):  # another process may have finished it meanwhile
            try:
                written = record(cell) | {"total_steps": ready.total}
                Training(cell, ready.parts, ready.dataset, ready.total, folder, tell, stop).run(written)
            except Stopped:
                raise
            except Exception as error:
                with suppress(OSError):  # a full disk: what went wrong must be said all the same
                    folder.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
                raise
    return Run(cell.folder)


def record_failure(cell: RunConfig, message: str, trace: str = "") -> None:
    """Give a cell that left none its `error.json`: it was killed, or failed before its folder was made."""
    with suppress(OSError, Locked, Unwritable), RunFolder(cell.folder) as folder:
        if is_finished(cell.folder):
            return
        if not (cell.folder / "config.yaml").exists():
            folder.start(record(cell))
        folder.fail(message, trace)


def forget(cell: RunConfig) -> None:
    """Let a finished cell be run again. Raises Locked."""
    with RunFolder(cell.folder) as folder:
        folder.clear()


def record_unsupported(cell: RunConfig, reason: str) -> None:
    """Give a cell of a study that can't be run its folder, so that no table passes over it in silence."""
    with suppress(Locked), RunFolder(cell.folder) as folder:  # another sweep is writing the same
        folder.start(record(cell))
        folder.finish({"status": "unsupported", "reason": reason})


def record(cell: RunConfig) -> dict[str, Any]:
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
