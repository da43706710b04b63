"""What an instrument is, what it may know of the run around it, when it measures, and where its rows go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn, optim

from normbench.data import Dataset
from normbench.instruments.probe import Probe
from normbench.training.callbacks import Callback, Log
from normbench.training.loop import Examples, Step, Update

Row = dict[str, Any]  # columns of measured/<name>.csv: layer, tensor, and the instrument's own
DIGITS = 7  # of each number in a table: as many as float32 has


@dataclass(frozen=True)
class Setting:
    """The run around an instrument. All of it may be read, none of it changed.

    Args:
        total: updates that the run will have.
        snapshots: after which of them instruments measure: log-spaced by default, 0 and `total` included.
        batch_size: images that a norm sees at once.
        train: the training set.
        validation: the validation set; the probe is its beginning.
        images: how many training images an instrument may use that wants many; no more than there are.
        optimizer: the run's own, with its state.
        update: how a mini-batch becomes the next weights.
        seconds: the seconds spent so far on "training", "evaluating" and "measuring".
        units: how many units of each layer have rows of their own, evenly spaced.
        seed: the run's: samples of the training images are drawn by it.
    """

    total: int
    snapshots: frozenset[int]
    batch_size: int
    train: Examples
    validation: Examples
    images: int
    optimizer: optim.Optimizer
    update: Update
    seconds: Callable[[], Mapping[str, float]]
    units: int = 0
    seed: int = 0


class Instrument:
    """Something measured on a model between two updates. A subclass needs `name`, `columns` and `measure`.

    Args:
        name: of its table, measured/<name>.csv.
        columns: the names of its own columns, besides the position in training, `layer` and `tensor`.
        when: "snapshots", or "end" for after the last update only.
        remembers: attributes that a checkpoint keeps, tensors and plain values: a resumed run's rows equal an
            undisturbed one's.
        result: numbers for the run's summary, after the last snapshot: names -> plain values.
    """

    name: str
    columns: Sequence[str]
    when: str = "snapshots"
    remembers: Sequence[str] = ()
    result: Mapping[str, Any] = MappingProxyType({})
    setting: Setting

    def prepare(self, setting: Setting) -> None:
        """Called once, before the first step."""
        self.setting = setting

    def due(self, index: int) -> bool:
        """Is it time, after `index` updates?"""
        return index in self.setting.snapshots if self.when == "snapshots" else index == self.setting.total

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterable[Row]:
        """The rows of now: numbers, or tensors of one number, which `read` reads from the device together.

        What runs `model` does so inside `preserve_state`; `probe` shows its tensors.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.remembers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


class StackedInstrument(Instrument):
    """One that measures the networks of a stack together: a run alone is a stack of one."""

    @classmethod
    def measure_stack(cls, members: Sequence[Self], step: Step, probes: Sequence[Probe]) -> Iterable[Iterable[Row]]:
        """The rows of each network. `members` are the instruments of each, equally configured."""
        raise NotImplementedError

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterable[Row]:
        (rows,) = self.measure_stack([self], step, [probe])
        return rows


class Instruments(Callback):
    """Lets each instrument measure when it is due, and writes its rows.

    Args:
        config: the run's; its group `instruments` says what they measure on.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        config: Mapping[str, Any],
        model: nn.Module,
        dataset: Dataset,
        optimizer: optim.Optimizer,
        update: Update,
        log: Log,
    ) -> None:
        self.instruments, self.model, self.log, self.planned = instruments, model, log, log.total
        self.cost = {instrument.name: 0.0 for instrument in instruments}  # seconds; the first pays for the shared pass
        if not instruments:
            return
        options, batch_size = config["instruments"], config["batch_size"]
        positions = torch.arange(min(options["probe"], len(dataset.validation)), device=config["device"])
        chosen = {"positions": options["positions"], "layers": options["layers"], "kinds": options["tensors"]}
        self.probe = Probe(model, *dataset.validation.batch(positions), batch_size, **chosen)
        setting = Setting(
            total=log.total,
            snapshots=snapshots(options["schedule"], log.total, options["snapshots"]),
            batch_size=batch_size,
            train=dataset.train,
            validation=dataset.validation,
            images=min(options["images"] or len(dataset.train), len(dataset.train)),
            optimizer=optimizer,
            update=update,
            seconds=log.clock.read,
            units=options["units"],
            seed=config["seed"],
        )
        for instrument in instruments:
            instrument.prepare(setting)

    def due(self, index: int) -> bool:
        return any(instrument.due(index) for instrument in self.instruments)

    def after(self, step: Step) -> None:
        if step.index == self.log.total != self.planned:  # seconds have ended the run
            for one in self.instruments:
                one.setting = replace(one.setting, total=step.index, snapshots=one.setting.snapshots | {step.index})
        due = [(place, one) for place, one in enumerate(self.instruments) if one.due(step.index)]
        if not due:
            return
        with self.log.clock.timed("measuring"):
            position = self.log.position(step.index)
            self.probe.forget(step.index)
            for place, instrument in due:
                begin = time.perf_counter()
                rows = (position | row for row in self.rows(place, step))
                self.log.folder.measured[instrument.name].append(
                    {key: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for key, v in row.items()}
                    for row in rows
                )
                self.cost[instrument.name] += time.perf_counter() - begin
            self.probe.forget()  # its tensors would lie in memory until the next snapshot

    def rows(self, place: int, step: Step) -> list[Row]:
        """Of the instrument at this place, with plain numbers."""
        return read(self.instruments[place].measure(step, self.model, self.probe))

    def results(self) -> dict[str, Any]:
        """What the run's summary says of what was measured."""
        results = {instrument.name: dict(instrument.result) for instrument in self.instruments}
        return {"measured": {k: v for k, v in results.items() if v}, "measuring_seconds": dict(self.cost)}

    def state_dict(self) -> dict[str, Any]:
        return {"cost": self.cost, "instruments": [instrument.state_dict() for instrument in self.instruments]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.cost = dict(state["cost"])
        for instrument, saved in zip(self.instruments, state["instruments"], strict=True):
            instrument.load_state_dict(saved)


def read(rows: Iterable[Row]) -> list[Row]:
    """These rows, their tensors of one number as floats: one wait for the device, however many there are."""
    rows = list(rows)
    tensors = [value.double() for row in rows for value in row.values() if isinstance(value, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else ())
    return [{key: next(numbers) if isinstance(v, Tensor) else v for key, v in row.items()} for row in rows]


def log_spaced(total: int, snapshots: int) -> list[int]:
    """At most `snapshots` steps from 0 to `total`, both included, denser at the start: its first 1% matters most.

    The distances grow geometrically; where they would be under one step, every step is taken.
    """
    if total <= 0 or snapshots <= 2:
        return [0] if total <= 0 else [0, total]
    grown = np.geomspace(1, total, snapshots - 1)
    chosen = np.maximum(np.round(grown).astype(int), np.arange(1, snapshots))  # no step twice while steps are few
    return [0, *np.unique(np.minimum(chosen, total)).tolist()]


def evenly_spaced(total: int, snapshots: int) -> list[int]:
    """At most `snapshots` evenly spaced steps from 0 to `total`, both included."""
    return np.unique(np.linspace(0, max(total, 0), max(snapshots, 2)).round().astype(int)).tolist()


def snapshots(schedule: str, total: int, count: int) -> frozenset[int]:
    """After which updates to measure: `count` of them, "log" (log_spaced) or "every" (evenly_spaced)."""
    return frozenset({"log": log_spaced, "every": evenly_spaced}[schedule](total, count))
