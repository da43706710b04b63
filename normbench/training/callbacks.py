"""What happens between updates: losses are logged, the learning curve goes on, a checkpoint is written.

    for step in steps(model, batches, optimizer):
        for callback in callbacks:
            callback.after(step)

Instruments and weight perturbations are callbacks, too; see `normbench.instruments` and `perturbation.py`.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normbench.errors import Stopped
from normbench.runs import Damaged, RunFolder
from normbench.training.loop import Step

logger = logging.getLogger("normbench")
ROWS = 1000  # of steps.csv, at most


class Callback:
    """Something that happens between updates. What it must remember from step to step is part of a checkpoint."""

    def after(self, step: Step) -> None:
        """Called before each update and after the last one. Leaves the model as it was, unless that is its purpose."""
        raise NotImplementedError

    def due(self, index: int) -> bool:
        """Must `after` be called after `index` updates? In a stack it isn't called after others."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


@dataclass(frozen=True)
class Progress:
    """How a run is doing, reported whenever its loss is read."""

    step: int
    total: int
    samples_per_second: float
    loss: float
    accuracy: float | None  # at the last point of the learning curve


OnProgress = Callable[[Progress], None]
Stop = Callable[[], bool]  # asked after every step: shall the run write its checkpoint and stop?


class Diverged(Exception):
    """The loss is no longer finite: a result, which ends the run. `step` is that of the first such loss."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss was no longer finite at step {step:,}")
        self.step = step


class Clock:
    """Seconds spent on "training", "evaluating" and "measuring". Whatever isn't timed as another is training."""

    def __init__(self) -> None:
        self.seconds = {"training": 0.0, "evaluating": 0.0, "measuring": 0.0}
        self._now, self._since = "", time.perf_counter()  # of nothing until it is started

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Counts the seconds inside it as `activity`."""
        self._switch(activity)
        yield
        self._switch("training")

    def start(self) -> None:
        """Count from now on."""
        self._switch("training")

    def stop(self) -> None:
        """Count no more, until it is started again."""
        self._switch("")

    def add(self, activity: str, seconds: float) -> None:
        """Count these, too: a share of what was done for several runs at once."""
        self.seconds[activity] += seconds

    def read(self) -> dict[str, float]:
        self._switch(self._now)
        return dict(self.seconds)

    def _switch(self, activity: str) -> None:
        before, self._since = self._since, time.perf_counter()
        if self._now:
            self.seconds[self._now] += self._since - before
        self._now = activity


class Log:
    """What the callbacks of a run share: its tables, its clock, where it is, and the numbers of its summary.

    Args:
        total: updates that the run will have.
        per_update: images in each.
        per_epoch: updates in an epoch.
        every: the loss is read after so many updates (and after the last): only then does the loop wait for the device.
        max_seconds: of training, after which the run ends; None: when `total` is reached.
    """

    def __init__(
        self,
        folder: RunFolder,
        total: int,
        per_update: int,
        per_epoch: int,
        every: int,
        max_seconds: float | None = None,
    ) -> None:
        self.folder, self.total, self.per_update, self.per_epoch = folder, total, per_update, per_epoch
        self.every, self.max_seconds = every, max_seconds
        self.clock = Clock()
        self.results: dict[str, Any] = {}  # numbers of the summary, as they become known
        self.accuracy: float | None = None  # at the last point of the learning curve

    def due(self, index: int) -> bool:
        """Is the loss read after `index` updates?"""
        return index % self.every == 0 or index == self.total

    def end_in_time(self, index: int) -> bool:
        """Let update `index` be the last if its end is beyond `max_seconds`. Returns whether it is the last now.

        The loop waits for nothing: on a GPU, which is behind, up to `every` updates are then still to be calculated.
        """
        if self.max_seconds is not None and self.clock.read()["training"] >= self.max_seconds:
            self.total = index
        return index == self.total

    def position(self, index: int, seconds: float | None = None) -> dict[str, Any]:
        """The first columns of every table: any of them can be an x axis. `seconds`: of training; None: those of now"""
        seconds = self.clock.read()["training"] if seconds is None else seconds
        return {"step": index, "samples": index * self.per_update, "epoch": round(index / self.per_epoch, 6),
                "train_seconds": round(seconds, 4)}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.clock.read(), "results": self.results}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clock.seconds, self.results = dict(state["seconds"]), dict(state["results"])


class LossLog(Callback):
    """Writes steps.csv: mean losses of at most ROWS equal parts of the run. Raises Diverged.

    Losses stay on the device until they are read. The seconds of a row lie on a straight line between two readings.
    """

    def __init__(self, log: Log) -> None:
        self.log, self.row_every = log, math.ceil(log.total / ROWS)
        self.losses: list[Tensor] = []  # since the last reading, on the device: [] or [updates] each
        self.seconds = 0.0  # of training, at the last reading
        self.sum, self.count = 0.0, 0  # of what was read since the last row

    def due(self, index: int) -> bool:
        return self.log.due(index)

    def after(self, step: Step) -> None:
        if step.loss is not None:
            self.losses.append(step.loss.view(-1))
        if self.losses and self.due(step.index):
            self._write(step.index)

    def _write(self, index: int) -> None:
        """Write the rows that end in the losses since the last reading, up to the first that is not finite."""
        losses = torch.cat(self.losses).tolist()  # the one place where the loop waits for the device
        self.losses, begin, n = [], index - len(losses), len(losses)
        since, self.seconds = self.seconds, self.log.clock.read()["training"]
        rows = []
        for i, loss in enumerate(losses, 1):
            self.sum, self.count = self.sum + loss, self.count + 1
            if (begin + i) % self.row_every == 0 or begin + i == self.log.total:
                seconds = since + (self.seconds - since) * i / n
                rows.append({**self.log.position(begin + i, seconds), "loss": self.sum / self.count})
                self.sum, self.count = 0.0, 0
                if not math.isfinite(rows[-1]["loss"]):
                    break
        self.log.folder.steps.append(rows)
        if rows:
            self.log.results["train_loss"] = rows[-1]["loss"]
            if not math.isfinite(rows[-1]["loss"]):
                raise Diverged(rows[-1]["step"])

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "seconds": self.seconds, "sum": self.sum, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses, self.seconds = list(state["losses"]), state["seconds"]
        self.sum, self.count = state["sum"], state["count"]


class LearningCurve(Callback):
    """Writes epochs.csv: loss and accuracy on validation images.

    Args:
        evaluate: () -> mean loss and accuracy.
        updates: after which of them, besides the last.
        seconds: of training between points.
    """

    def __init__(
        self,
        log: Log,
        evaluate: Callable[[], tuple[float, float]],
        updates: frozenset[int],
        seconds: float = math.inf,
    ) -> None:
        self.log, self.evaluate, self.updates, self.seconds = log, evaluate, updates, seconds
        self.parts = 1  # of `seconds` each, at whose end the next point lies

    def due(self, index: int) -> bool:
        return index in self.updates or index == self.log.total

    def after(self, step: Step) -> None:
        seconds = self.log.clock.read()["training"] if self.seconds < math.inf else 0.0
        if self.due(step.index) or seconds >= self.parts * self.seconds:
            self.parts = int(seconds // self.seconds) + 1
            with self.log.clock.timed("evaluating"):
                loss, accuracy = self.evaluate()
                self.log.accuracy, found = accuracy, {"validation_loss": loss, "validation_accuracy": accuracy}
                self.log.folder.epochs.append([{**self.log.position(step.index), **found}])

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.parts = state.get("parts", 1)


class ReportProgress(Callback):
    """Calls `on_progress` whenever the loss has been read."""

    def __init__(self, log: Log, on_progress: OnProgress) -> None:
        self.log, self.on_progress = log, on_progress

    def due(self, index: int) -> bool:
        return self.log.due(index)

    def after(self, step: Step) -> None:
        if step.index and self.due(step.index):
            per_update = max(self.log.clock.read()["training"], 1e-9) / step.index
            total, loss = self.log.total, self.log.results.get("train_loss", math.nan)
            if self.log.max_seconds is not None:
                total = max(step.index, min(total, math.ceil(self.log.max_seconds / per_update)))
            self.on_progress(Progress(step.index, total, self.log.per_update / per_update, loss, self.log.accuracy))


class Checkpoint(Callback):
    """Saves all that a run needs to go on as if it had never been interrupted. Raises Stopped.

    That is the model, the optimizer, the position, torch's random numbers, and the state of the other callbacks.

    Args:
        callbacks: the others, by name.
        seconds: between checkpoints; one is written only when the loss has been read.
        stop: asked after every step.
    """

    def __init__(
        self,
        log: Log,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        callbacks: Mapping[str, Callback],
        seconds: float,
        stop: Stop,
    ) -> None:
        self.log, self.seconds, self.stop = log, seconds, stop
        self.parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "log": log, **callbacks}
        self.device = next(model.parameters()).device
        self._last = time.perf_counter()

    def due(self, index: int) -> bool:
        return self.log.due(index)

    def after(self, step: Step) -> None:
        if step.index == self.log.total:
            return
        stopping = self.stop()
        late = self.log.due(step.index) and time.perf_counter() - self._last >= self.seconds
        if stopping or late:
            self._write(step.index)
        if stopping:
            raise Stopped(f"stopped at step {step.index:,} of {self.log.total:,}")

    def _write(self, index: int) -> None:
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        state = {name: part.state_dict() for name, part in self.parts.items()}
        self.log.folder.write_checkpoint(
            to_bytes({"index": index, "random": torch.get_rng_state(), "random_cuda": cuda, **state})
        )
        self._last = time.perf_counter()

    def restore(self) -> int | None:
        """Take over the state saved last. Returns how many updates were done; None where no sound one was saved."""
        folder = self.log.folder
        try:
            saved = folder.read_checkpoint()
            if saved is None:
                return None
            state = torch.load(io.BytesIO(saved), map_location=self.device, weights_only=True)
        except (Damaged, RuntimeError, pickle.UnpicklingError) as error:
            logger.warning("%s: %s; the run starts over", folder.path.name, error)
            return None
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        logger.info("%s: continues at step %s of %s", folder.path.name, f"{state['index']:,}", f"{self.log.total:,}")
        return state["index"]


def to_bytes(state: Any) -> bytes:
    """What `torch.save` writes. Of a view, such as a network's in a stack, that is not all that it is a view of."""
    buffer = io.BytesIO()
    torch.save(_own(state), buffer)
    return buffer.getvalue()


def _own(state: Any) -> Any:
    if isinstance(state, dict):
        made = copy(state)
        made.update((key, _own(value)) for key, value in state.items())
        return made
    if isinstance(state, list | tuple):
        return type(state)(map(_own, state))
    return state.clone() if isinstance(state, Tensor) and state.untyped_storage().nbytes() > state.nbytes else state
