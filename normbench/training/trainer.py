"""A run in progress: the loop over training steps, with instruments, files and checkpoints around it."""

from __future__ import annotations

import io
import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from normbench import seeding
from normbench.config.run_config import Parts, Progress, RunConfig, Stop, Tell
from normbench.data import Dataset, Split
from normbench.errors import Stopped
from normbench.instruments import evenly_spaced
from normbench.instruments.measuring import Measuring
from normbench.runs import Damaged, RunFolder
from normbench.training.evaluation import evaluate_own
from normbench.training.loop import Update, mini_batches, steps
from normbench.training.network import new_model, start
from normbench.training.optimizers import first_lr, lr_by_step, make_optimizer
from normbench.training.perturbation import Perturbation
from normbench.training.summary import at_chance, dataset_facts, finite, remark

log = logging.getLogger("normbench")
ROWS = 1000  # of steps.csv, at most


class Training:
    """A run in progress: everything that a checkpoint holds, and the loop over it."""

    def __init__(
        self, cell: RunConfig, parts: Parts, dataset: Dataset, total: int, folder: RunFolder, tell: Tell, stop: Stop
    ) -> None:
        config = self.config = cell.config
        self.parts, self.dataset, self.total, self.folder = parts, dataset, total, folder
        self.tell, self.stop = tell, stop
        self.device = torch.device(config["device"])
        self.model = new_model(config, parts, dataset)
        self.per_update = config["batch_size"] * config["accumulate"]  # images
        shared = {name: config[name] for name in ("weight_decay", "momentum", "decay_norm_parameters")}
        self.optimizer = make_optimizer(config["optimizer"], self.model, lr=first_lr(config), **shared)
        self.update = Update(lr_by_step(config, total), config["clip_norm"], config["accumulate"])
        self.perturbation = Perturbation.of(config)
        self.index = 0
        self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0  # since the last row of steps.csv
        self.pending: list[tuple[dict[str, Any], Tensor]] = []  # rows whose loss is still on the device
        self.seconds = {"training": 0.0, "evaluating": 0.0, "measuring": 0.0}
        self.last: dict[str, Any] = {}  # the summary's numbers, as they become known
        self.measuring = Measuring(
            parts.instruments, config, self.model, dataset, total, self.optimizer, self.update, folder, self._seconds
        )

    def run(self, record: Mapping[str, Any]) -> None:
        """Train to the end and write the summary. Raises Stopped."""
        resumed = self._resume()
        if not resumed:
            self.folder.start(record)
            start(self.model, self.parts, self.dataset)
        config, train = self.config, self.dataset.train
        row_every = math.ceil(self.total / ROWS)
        evaluations = frozenset(evenly_spaced(self.total, config["evaluations"] + 1))
        first, self._begin = self.index, time.perf_counter()
        self._paused, last_saved = 0.0, self._begin
        batches = mini_batches(train, self.per_update, self._order, first, self.total, self._draw())
        diverged: int | None = None
        for step in steps(self.model, batches, self.optimizer, first, self.update):
            index = self.index = step.index
            if step.loss is not None:
                self.loss_sum += step.loss
                self.loss_count += 1
            elif resumed:
                continue  # what is due here was done before the checkpoint
            if self.loss_count and (index % row_every == 0 or index == self.total):
                self.pending.append((self._position(), self.loss_sum / self.loss_count))
                self.loss_sum, self.loss_count = torch.zeros_like(self.loss_sum), 0
            looked = index % config["log_every"] == 0 or index == self.total
            if looked and self.pending:
                diverged = self._write_steps()
            if diverged is not None:
                break
            if index in evaluations:
                with self._timed("evaluating"):
                    self._evaluate()
            if due := self.measuring.due(index):
                with self._timed("measuring"):
                    self.measuring.measure(due, step, self._position())
            if self.perturbation is not None and index == self.perturbation.step and step.batch is not None:
                with self._timed("measuring"):
                    self.last["perturbation"] = self.perturbation.apply(self.model, step.batch)
            if looked and index:
                self._tell()
            stopping = index < self.total and self.stop()
            late = looked and index < self.total and time.perf_counter() - last_saved >= config["checkpoint_seconds"]
            if stopping or late:
                self.folder.write_checkpoint(self._state())
                last_saved = time.perf_counter()
            if stopping:
                raise Stopped(f"stopped at step {index:,} of {self.total:,}")
        self._finish(diverged)

    def _order(self, epoch: int) -> Tensor:
        return seeding.order(self.config["seed"], epoch, len(self.dataset.train)).to(self.device)

    def _draw(self) -> Callable[[int], torch.Generator] | None:
        """What augmentation draws from, anew for each batch; None where there is none."""
        if self.config["dataset"].get("augment", "none") == "none":
            return None
        generator = torch.Generator(self.device)
        return lambda index: generator.manual_seed(seeding.derive(self.config["seed"], "augment", index))

    def _write_steps(self) -> int | None:
        """Write pending rows of steps.csv, up to the first loss that is not finite, and return the step of that one."""
        pending, self.pending = self.pending, []
        # the one place where the loop waits for the device
        losses = torch.stack([loss for _, loss in pending]).tolist()
        for (position, _), loss in zip(pending, losses, strict=True):
            self.folder.steps.append([{**position, "loss": loss}])
            self.last["train_loss"] = loss
            if not math.isfinite(loss):
                return position["step"]
        return None

    def _evaluate(self) -> None:
        position = self._position()  # before: its seconds are those of training alone
        loss, accuracy = self._on(self.dataset.validation)
        self.last.update(validation_loss=loss, validation_accuracy=accuracy)
        self.folder.epochs.append([{**position, "validation_loss": loss, "validation_accuracy": accuracy}])

    def _on(self, images: Split) -> tuple[float, float]:
        """Loss and accuracy with the scheme's kind of statistics."""
        kind, size = self.parts.scheme.statistics, self.config["batch_size"]
        return evaluate_own(self.model, kind, self.dataset.train, images, size)

    def _finish(self, diverged: int | None) -> None:
        summary: dict[str, Any] = {
            "status": "complete" if diverged is None else "diverged",
            "steps": self.index,
            "samples": self.index * self.per_update,
            "epoch": self._position()["epoch"],
            "diverged_step": diverged,
            "train_loss": None, "validation_loss": None, "validation_accuracy": None,
            "test_loss": None, "test_accuracy": None, "at_chance": None,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "dataset": dataset_facts(self.dataset),
        }  # fmt: skip
        summary.update(self.last)
        if (words := remark(self.model, self.config["batch_size"])) is not None:
            summary["remark"] = words
        if diverged is None:
            with self._timed("evaluating"):
                loss, accuracy = self._on(self.dataset.test)
            summary.update(test_loss=loss, test_accuracy=accuracy, at_chance=at_chance(accuracy, self.dataset))
        seconds = self._seconds()
        summary["seconds"] = {**seconds, "total": sum(seconds.values())}
        summary.update(self.measuring.results())
        if self.config["save_model"]:
            self.folder.write_model(_to_bytes(self.model.state_dict()))
        self.folder.finish(finite(summary))

    # ---- time and position

    def _seconds(self) -> dict[str, float]:
        return {**self.seconds, "training": self._training_seconds()}

    def _training_seconds(self) -> float:
        return self.seconds["training"] + time.perf_counter() - self._begin - self._paused

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Counts the seconds inside it as `what`, and not as training."""
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self.seconds[what] += seconds
        self._paused += seconds

    def _position(self) -> dict[str, Any]:
        samples = self.index * self.per_update
        epoch = self.index / (len(self.dataset.train) // self.per_update)
        return {"step": self.index, "samples": samples, "epoch": round(epoch, 6),
                "train_seconds": round(self._training_seconds(), 4)}  # fmt: skip

    def _tell(self) -> None:
        seconds = max(self._training_seconds(), 1e-9)
        speed = self.index * self.per_update / seconds
        loss, accuracy = self.last.get("train_loss", math.nan), self.last.get("validation_accuracy")
        self.tell(Progress(self.index, self.total, speed, loss, accuracy))

    # ---- checkpoints

    def _state(self) -> bytes:
        state = {
            "index": self.index,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "measuring": self.measuring.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "pending": self.pending,
            "seconds": self._seconds(),
            "last": self.last,
        }
        return _to_bytes(state)

    def _resume(self) -> bool:
        """Continue from the checkpoint, if there is a sound one."""
        try:
            saved = self.folder.read_checkpoint()
            if saved is None:
                return False
            state = torch.load(io.BytesIO(saved), map_location=self.device, weights_only=True)
        except (Damaged, RuntimeError, pickle.UnpicklingError) as error:
            log.warning("%s: %s; the run starts over", self.folder.path.name, error)
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.measuring.load_state_dict(state["measuring"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        self.index, self.loss_sum, self.loss_count = state["index"], state["loss_sum"], state["loss_count"]
        self.pending, self.seconds, self.last = state["pending"], state["seconds"], state["last"]
        log.info("%s: continues at step %s of %s", self.folder.path.name, f"{self.index:,}", f"{self.total:,}")
        return True


def _to_bytes(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
