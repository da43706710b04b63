"""The network that is explained: a finished run's, or one trained for a moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.commands.trained import load_trained, require_complete
from normbench.config import app
from normbench.data import Dataset
from normbench.errors import ConfigError, Unsupported, UserError
from normbench.experiment import build, check_supported, prepare_cell
from normbench.training.loop import Update, mini_batches, steps
from normbench.training.network import new_model, start
from normbench.training.optimizers import first_lr, lr_by_step, make_optimizer

STEPS = 200  # of training on the spot
USUAL = "batch_size=4"  # few enough to check by hand
MANY = 256  # images, for what four can't show
BESIDES = ("batch_size", "data_dir", "device", "norm")  # what may be said of a run that is over


@dataclass(frozen=True)
class Subject:
    """A trained network on the CPU, and the images that it is explained with: the first of the training split."""

    model: nn.Module
    scheme: str
    title: str
    trained: str
    images: Tensor
    labels: Tensor
    many: Tensor


def fresh(words: Sequence[str]) -> Subject | None:
    """The network of `words`, trained for 200 steps. None where Hydra has printed what was asked for.

    Raises: UserError.
    """
    given = any(word.startswith(("batch_size=", "experiment=")) for word in words)
    cells, swept = app.cells("explain", [*words] if given else [*words, USUAL])
    if swept:
        raise ConfigError("explain looks at one network: leave out -m, and give each option one value.")
    if not cells:
        return None
    [cell] = cells
    try:
        ready = prepare_cell(cell)
    except Unsupported as error:
        raise ConfigError(str(error)) from error
    config, train = cell.config, ready.dataset.train
    total = STEPS if config["max_steps"] is None else config["max_steps"]
    torch.set_num_threads(config["threads"])
    model = new_model(config, ready.parts, ready.dataset)
    start(model, ready.parts, ready.dataset)
    shared = {name: config[name] for name in ("weight_decay", "momentum", "decay_norm_parameters")}
    optimizer = make_optimizer(config["optimizer"], model, lr=first_lr(config), **shared)
    update = Update(lr_by_step(config, total), config["clip_norm"], config["accumulate"])

    def order(epoch: int) -> Tensor:
        return seeding.order(config["seed"], epoch, len(train)).to(config["device"])

    batches = mini_batches(train, config["batch_size"] * config["accumulate"], order, 0, total)
    last = [step.loss for step in islice(steps(model, batches, optimizer, 0, update), total, None)]
    if not all(loss is None or math.isfinite(loss) for loss in last):
        raise UserError(f"the network diverged within {total} steps: its loss is no longer finite. Use a smaller lr.")
    return _subject(model, ready.dataset, cell.choices, config, f"trained for {total:,} steps")


def of_run(folder: Path, words: Sequence[str]) -> Subject:
    """The network that a run has trained; nothing in its folder changes. Raises UserError."""
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
    try:
        config["batch_size"] = int(config.get("batch_size", 4))
    except ValueError:
        config["batch_size"] = 0
    if config["batch_size"] < 1:
        raise UserError("batch_size must be a whole number, 1 or more.")
    config.setdefault("device", "auto")
    trained = load_trained(folder, config)
    try:
        check_supported(trained.config, build(trained.config), trained.dataset.shape, len(trained.dataset.classes))
    except Unsupported as error:
        raise UserError(str(error)) from error
    kind = "" if trained.statistics == "ema" else f", norm.statistics={trained.statistics}"
    return _subject(trained.model, trained.dataset, choices, trained.config, f"as trained in {folder}{kind}")


def _subject(
    model: nn.Module, dataset: Dataset, choices: dict[str, str], config: dict[str, Any], trained: str
) -> Subject:
    train = dataset.train
    if config["batch_size"] > len(train):
        raise UserError(f"batch_size must be at most the {len(train):,} training images: got {config['batch_size']}.")
    count = min(max(MANY, config["batch_size"]), len(train))
    draw = torch.Generator(config["device"]).manual_seed(0)  # of augmentation, where there is some
    images, labels = (tensor.cpu() for tensor in train.batch(torch.arange(count, device=config["device"]), draw))
    few = config["batch_size"]
    title = " · ".join(choices[group] for group in ("norm", "model", "dataset"))
    return Subject(model.cpu(), choices["norm"], title, trained, images[:few], labels[:few], images)
