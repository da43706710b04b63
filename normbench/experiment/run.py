"""A run in training: its network, what happens between two updates, and its files."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from scipy.special import bdtrc
from torch import Tensor, nn

from normbench import seeding
from normbench.config.run_config import RunConfig, command
from normbench.data import Dataset
from normbench.errors import Stopped
from normbench.experiment.prepare import Prepared, new_model
from normbench.instruments import Instruments, evenly_spaced
from normbench.noise import Key, key_of
from normbench.norms import uses_batch
from normbench.runs import RunFolder
from normbench.training.callbacks import (
    Callback,
    Checkpoint,
    Diverged,
    LearningCurve,
    Log,
    LossLog,
    OnProgress,
    ReportProgress,
    Stop,
    to_bytes,
)
from normbench.training.device import calculate_exactly, device_name, keep_freed_memory
from normbench.training.evaluation import evaluate_with_kind, sample_batches
from normbench.training.loop import Batch, Step, Update, mini_batches
from normbench.training.optimizers import first_lr, lr_by_step, make_optimizer
from normbench.training.perturbation import Perturbation, PerturbWeights
from normbench.training.provenance import provenance

LUCK = 0.00135  # an accuracy that is likelier than this without learning is at chance


def set_up_torch(config: Mapping[str, Any]) -> None:
    """The settings of the whole process that a run is calculated with."""
    torch.set_num_threads(config["threads"])
    calculate_exactly()
    keep_freed_memory()


def run_folder(ready: Prepared) -> RunFolder:
    columns = {instrument.name: instrument.columns for instrument in ready.parts.instruments}
    return RunFolder(ready.run_config.folder, columns, ready.dataset.checksum, ready.run_config.identity)


@contextmanager
def recorded_failure(folder: RunFolder) -> Iterator[None]:
    """What goes wrong inside is in the run's `error.json`, too."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        with suppress(OSError):  # a full disk: what went wrong must be said all the same
            folder.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
        raise


class Training:
    """A run in training, alone or in a stack: its network, what happens between updates, and its files.

    It is where its checkpoint left it, if there is one. Then: `begin`, `after` each update, `finish`.
    """

    def __init__(self, ready: Prepared, folder: RunFolder, on_progress: OnProgress, stop: Stop) -> None:
        self.ready, self.folder = ready, folder
        config, parts, dataset, total = ready.run_config.config, ready.parts, ready.dataset, ready.total
        self.model = model = new_model(config, parts, dataset)
        shared = {name: config[name] for name in ("weight_decay", "momentum", "decay_norm_parameters")}
        self.optimizer = make_optimizer(config["optimizer"], model, lr=first_lr(config), **shared)
        self.update = Update(lr_by_step(config, total), config["clip_norm"], config["accumulate"], config["amp"])
        self.per_update = config["batch_size"] * config["accumulate"]
        per_epoch, seconds = len(dataset.train) // self.per_update, config["max_seconds"]
        self.log = log = Log(folder, total, self.per_update, per_epoch, config["log_every"], seconds)
        validation = dataset.validation
        curve = replace(validation, index=validation.index[: config["curve_images"]])  # stratified
        self.splits = {"curve": curve, "validation": validation, "test": dataset.test}
        self.instruments = Instruments(parts.instruments, config, model, dataset, self.optimizer, self.update, log)
        points = config["evaluations"]
        evaluations = frozenset(evenly_spaced(total, points + 1) if seconds is None else (0,))
        apart = math.inf if seconds is None else seconds / points
        callbacks: dict[str, Callback] = {
            "loss": LossLog(log),
            "curve": LearningCurve(log, lambda: self.evaluate("curve"), evaluations, apart),
            "instruments": self.instruments,
        }
        if (perturbation := Perturbation.of(config)) is not None:
            callbacks["perturbation"] = PerturbWeights(log, model, perturbation)
        callbacks["progress"] = ReportProgress(log, on_progress)
        checkpoint = Checkpoint(log, model, self.optimizer, callbacks, config["checkpoint_seconds"], stop)
        self.callbacks = [*callbacks.values(), checkpoint]
        self.done = checkpoint.restore()  # updates
        self.step = Step(self.done or 0, None, None)
        self.order, self.key = draws(config, dataset)
        self.diverged: int | None = None

    def begin(self, stack: int | None = None) -> None:
        """Start its files and adjust its weights to the data, unless it continues. `stack`: of how many runs."""
        if self.done is not None:
            return
        ready, config, train = self.ready, self.ready.run_config.config, self.ready.dataset.train
        about = {"total_steps": ready.total, "executed": {"device": device_name(config["device"]), "stack": stack}}
        self.folder.start(record(ready.run_config) | {"classes": list(ready.dataset.classes), **about})
        scheme, count = ready.parts.scheme, min(ready.parts.scheme.init_images, len(train))
        if scheme.data_dependent_init is not None and count > 0:
            ((images, _),) = sample_batches(train, count, count, train.images.device, ready.run_config.config["seed"])
            scheme.data_dependent_init(self.model, images)

    def evaluate(self, split: str) -> tuple[float, float]:
        config, train = self.ready.run_config.config, self.ready.dataset.train
        kind, size, seed = self.ready.parts.scheme.statistics, config["batch_size"], config["seed"]
        return evaluate_with_kind(self.model, kind, train, self.splits[split], size, seed)

    def due(self, index: int) -> bool:
        """Must `after` be called after `index` updates?"""
        return any(callback.due(index) for callback in self.callbacks)

    def after(self, step: Step) -> bool:
        """What happens between two updates, and after the last. Returns whether training goes on; raises Stopped."""
        self.step = step
        if step.loss is None and self.done is not None:
            return True  # what is due here was done before the checkpoint
        if step.index and self.log.end_in_time(step.index):
            self.step = step = replace(step, batch=None)
        try:
            for callback in self.callbacks:
                callback.after(step)
        except Diverged as error:
            self.diverged = error.step
        return self.diverged is None and step.index < self.log.total

    def finish(self) -> None:
        """Write what came out: from here on the run is over."""
        log, step, config, dataset = self.log, self.step, self.ready.run_config.config, self.ready.dataset
        if self.diverged is None:
            with log.clock.timed("evaluating"):
                validation, test = self.evaluate("validation"), self.evaluate("test")
            weights_are_finite = all(parameter.isfinite().all() for parameter in self.model.parameters())
            if weights_are_finite and math.isfinite(validation[0]) and math.isfinite(test[0]):
                log.results |= {"validation_loss": validation[0], "validation_accuracy": validation[1]}
                log.results |= {
                    "test_loss": test[0],
                    "test_accuracy": test[1],
                    "at_chance": at_chance(test[1], dataset),
                }
            else:
                self.diverged = step.index

        summary: dict[str, Any] = {
            "status": "complete" if self.diverged is None else "diverged",
            "steps": step.index,
            "samples": step.index * self.per_update,
            "epoch": log.position(step.index)["epoch"],
            "diverged_step": self.diverged,
            "train_loss": None, "validation_loss": None, "validation_accuracy": None,
            "test_loss": None, "test_accuracy": None, "at_chance": None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "dataset": dataset_facts(dataset),
        }  # fmt: skip
        summary.update(log.results)
        remarks = [text] if (text := remark(self.model, config["batch_size"])) is not None else []
        if self.diverged is None and summary["at_chance"] is None:
            remarks.append("too few test images to tell from chance")
        if self.diverged is None and config["max_seconds"] is not None and step.index == self.ready.total:
            remarks.append("all updates were made before max_seconds was reached: give more epochs, for one")
        if remarks:
            summary["remark"] = "; ".join(remarks)
        seconds = log.clock.read()
        summary["seconds"] = {**seconds, "total": sum(seconds.values())}
        summary.update(self.instruments.results())
        if config["save_model"]:
            self.folder.write_model(to_bytes(self.model.state_dict()))
        self.folder.finish(finite(summary))


def batches(config: Mapping[str, Any], dataset: Dataset, start: int, total: int) -> Iterator[Batch]:
    """The batches of the run's updates `start` to `total`, by its seed."""
    per_update = config["batch_size"] * config["accumulate"]
    order, key = draws(config, dataset)
    return mini_batches(dataset.train, per_update, order, start, total, key)


def draws(config: Mapping[str, Any], dataset: Dataset) -> tuple[Callable[[int], Tensor], Callable[[int], Key] | None]:
    """What `mini_batches` asks for: the order of an epoch, and what the augmentation of a batch draws, if any."""
    seed, count, device = config["seed"], len(dataset.train), dataset.train.images.device
    augment = seeding.derive(seed, "augment")

    def order(epoch: int) -> Tensor:
        return seeding.order(seed, epoch, count).to(device)

    def key(index: int) -> Key:
        return key_of(augment, index, "augment", device)

    return order, None if dataset.train.augment is None else key


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name, "checksum": dataset.checksum, "synthetic": dataset.synthetic,
        "classes": len(dataset.classes), "train": len(dataset.train), "validation": len(dataset.validation),
        "test": len(dataset.test),
    }  # fmt: skip


def at_chance(accuracy: float, dataset: Dataset) -> bool | None:
    """Is `accuracy` no more than luck? None: on so few test images not even 100% would be more.

    Luck is to have as many right with a chance above 0.00135 (three standard errors of a normal distribution) when each
    image is right with the share of the commonest class: the upper tail of the binomial distribution, exactly.
    """
    labels = dataset.test.labels[dataset.test.index]
    n = len(labels)
    commonest = labels.bincount().max().item() / n
    by_luck = [float(bdtrc(right - 1, n, commonest)) if right else 1.0 for right in (round(accuracy * n), n)]
    return None if by_luck[1] > LUCK else by_luck[0] > LUCK


def remark(model: nn.Module, batch_size: int) -> str | None:
    """What a reader of the results must know of this network at this batch size; None: nothing."""
    if batch_size > 1 or not any(uses_batch(module) for module in model.modules()):
        return None
    return "batches of one: each image is normalised alone, over its positions"


def finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def record(run_config: RunConfig) -> dict[str, Any]:
    """What a run's config.yaml says of it, besides what `RunFolder` itself writes there."""
    return {
        "name": run_config.name,
        "command": command("run", *run_config.flags, *run_config.words),
        "overrides": run_config.words,
        "written": run_config.written,
        "choices": run_config.choices,
        "identity": run_config.identity,
        "config": run_config.config,
        **provenance(),
    }
