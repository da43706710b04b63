"""Before a run: can its network be built, trained and stacked, and does it fit into memory? Writes nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.config.run_config import RunConfig, has_own_code
from normbench.config.schema import check_layers
from normbench.data import Dataset
from normbench.errors import ConfigError, Unsupported
from normbench.experiment.parts import Parts, build, load_dataset
from normbench.models import initialize
from normbench.noise import seed_noise
from normbench.norms import blocks
from normbench.training.memory import saved_for_backward, size
from normbench.training.optimizers import hidden_matrices
from normbench.training.perturbation import Perturbation
from normbench.training.stack import LARGEST, why_not_stacked

SMALL = 2**20  # bytes of a batch, and of a network's weights, so that a step takes a few milliseconds


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
class Prepared:
    """A run that was checked and can be executed."""

    run_config: RunConfig
    parts: Parts
    dataset: Dataset
    total: int  # updates
    saved_bytes: int = 0  # that a step keeps for the backward pass, where it was checked
    fits: int = 0  # so many runs like it can be one stack; 0: it is not to be trained in one, be it of itself alone ...
    why_alone: str = ""  # ... because it can't: the reason


def prepare_run(run_config: RunConfig, checked: bool = False) -> Prepared:
    """Build the parts of `run_config`, load its data, and make sure that it can be trained. Writes nothing.

    Args:
        checked: the plan of its sweep has made sure of it. That takes as long as starting the run does (and the first
            time in a process 2 s more, in which torch imports its compiler for tensors without numbers).

    Raises:
        ConfigError: it can't be run as asked.
        Unsupported: its scheme can't train its network at its batch size.
    """
    config, parts = run_config.config, build(run_config.config)
    dataset = load_dataset(config, parts)
    total = total_steps(config, len(dataset.train))
    if checked:
        return Prepared(run_config, parts, dataset, total, fits=int(is_stacked(config)))
    model, saved = check_supported(config, parts, dataset.shape, len(dataset.classes))
    check_layers(config["instruments"].get("layers"), [name for name, _ in blocks(model)])
    if (perturbation := Perturbation.of(config)) is not None:
        perturbation.check(model, total)
    ready = Prepared(run_config, parts, dataset, total, saved)
    if not is_stacked(config):
        return ready
    if (why := why_alone(ready)) is not None:
        return replace(ready, why_alone=why)
    # Weights, gradients, averages of an optimizer and what is computed on the way; what the backward pass needs, and as
    # much again in it; order of the images. A fifth of the free memory, as several stacks are trained side by side.
    need = 6 * size(model.parameters()) + 2 * saved + 8 * len(dataset.train)
    return replace(ready, fits=max(1, min(LARGEST, int(0.2 * free_memory(config["device"]) / need))))


def is_stacked(config: Mapping[str, Any]) -> bool:
    """Is this run to be trained in a stack, be it one of itself alone?"""
    return config["execute"] == "stacked" or (config["execute"] == "auto" and config["device"] != "cpu")


def why_alone(ready: Prepared) -> str | None:
    """Why runs like this one can't be stacked, tried on a few images that are noise, on the CPU; None: they can."""
    config = ready.run_config.config
    if config["optimizer"] == "muon":
        return "optimizer=muon changes each weight matrix as a whole"
    if config["amp"] != "none":
        return "amp=bf16 rounds otherwise in a stack than alone"
    if config["max_seconds"] is not None:
        return "max_seconds is of a run's own training"
    for images in (min(8, config["batch_size"]), config["batch_size"]):
        models = [new_model({**config, "seed": k, "device": "cpu"}, ready.parts, ready.dataset) for k in range(2)]
        x = torch.randn(2, images, *ready.dataset.shape, generator=seeding.generator(0, "tried"))
        with suppress(Unsupported):  # by so few images
            return why_not_stacked(models, x, torch.arange(2 * images).view(2, -1) % len(ready.dataset.classes))
    return "it does not train on noise"


def check_supported(
    config: Mapping[str, Any], parts: Parts, shape: tuple[int, int, int], classes: int
) -> tuple[nn.Module, int]:
    """Can this network be built and trained at this batch size? Runs one batch, of zeros. Where that is large, or the
    code is the user's own, it runs without numbers, for which torch imports its compiler: 2 s.

    Returns: the network, of no use any more, and the bytes that a training step keeps for the backward pass.

    Raises:
        Unsupported: the scheme can't do it.
        ConfigError: it can't be built at all, a norm changes the shape of its input, or memory would not suffice.
    """
    try:
        with torch.device("meta"):
            model = parts.model(parts.scheme, shape, classes).train()
        is_small = max(size(model.parameters()), 4 * config["batch_size"] * math.prod(shape)) < SMALL
        is_small = is_small and not has_own_code(config)
        with torch.device("cpu" if is_small else "meta"), torch.random.fork_rng(devices=[]):
            if is_small:
                model = parts.model(parts.scheme, shape, classes).train()
            for name, block in blocks(model):
                norm = getattr(block, "norm", None)
                if norm is not None:
                    norm.register_forward_hook(partial(_require_same_shape, f"norm={parts.scheme.name}", name))
            if config["optimizer"] == "muon":
                hidden_matrices(model)
            images, labels = torch.zeros(config["batch_size"], *shape), torch.zeros(config["batch_size"]).long()
            saved = saved_for_backward(model, images, labels)
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
    return model, saved


def _require_same_shape(scheme: str, block: str, norm: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if output.shape != inputs[0].shape:
        before, after = list(inputs[0].shape), list(output.shape)
        raise ValueError(f"{scheme}: a norm must keep the shape of its input: in {block}, {before} became {after}.")


def free_memory(device: str) -> int:
    """Bytes that could be had now: of the GPU, or of the machine; a great many where nobody tells."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # macOS
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def new_model(config: Mapping[str, Any], parts: Parts, dataset: Dataset) -> nn.Module:
    """The network before training, its weights drawn, on its device; torch's own generators start anew, too."""
    seed, options = config["seed"], config["model"]
    seeding.seed_everything_else(seed)
    model: nn.Module = parts.model(parts.scheme, dataset.shape, len(dataset.classes))
    drawn = {name: options[f"init_{name}"] for name in ("std", "scale") if f"init_{name}" in options}
    initialize(model, parts.scheme, options["init"], lambda name: seeding.generator(seed, "weights", name), **drawn)
    model.to(config["device"])
    if config["device"] == "cpu":
        # Features innermost, as torch's kernels on a CPU like it: max pooling takes a twelfth of the time, a step of
        # the CNN on CIFAR-10 0.72, evaluating it 0.6 (one core of an AMD EPYC, torch 2.14).
        model.to(memory_format=torch.channels_last)
    seed_noise(model, seeding.derive(seed, "noise"))
    return model
