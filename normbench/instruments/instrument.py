"""What an instrument is, and what it may know of the run that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, Protocol

from torch import nn, optim

from normbench.instruments.probe import Probe
from normbench.training.loop import Examples, Step, Update

Row = dict[str, Any]  # columns of measured/<name>.csv: layer, tensor, and the instrument's own


@dataclass(frozen=True)
class Setting:
    """The run around an instrument. All of it may be looked at, none of it changed.

    Args:
        total: updates that the run will have.
        snapshots: after which of them it is time to look: log-spaced by default, 0 and `total` included.
        batch_size: images that a norm sees at once.
        train: the training set.
        validation: the validation set; the probe is its beginning.
        images: how many training images an instrument may use that wants many; no more than there are.
        optimizer: the run's own, with its state.
        update: how a mini-batch becomes the next weights.
        seconds: the seconds spent so far on "training", "evaluating" and "measuring".
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


class Instrument(Protocol):
    """Something measured on a model between two updates. A subclass needs `name`, `columns` and `measure`.

    Args:
        name: of its table, measured/<name>.csv.
        columns: the names of its own columns, besides the position in training, `layer` and `tensor`.
        when: "snapshots", or "end" for after the last update only.
    """

    name: str
    columns: Sequence[str]
    when: str = "snapshots"
    setting: Setting

    def prepare(self, setting: Setting) -> None:
        """Told once, before the first step."""
        self.setting = setting

    def due(self, index: int) -> bool:
        """Is it time, after `index` updates?"""
        return index in self.setting.snapshots if self.when == "snapshots" else index == self.setting.total

    def rows(self, tensors: int, times: int) -> int:
        """At most how many rows there are in a snapshot of a network with so many tensors (three a block) and time
        steps that are looked at (1 if it isn't recurrent). Files are bounded, and the bound is told before the run.
        """
        return 3 * tensors

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterable[Row]:
        """Look at `model`. What runs it does so inside `preserve_state`; `probe` shows its tensors."""
        ...

    def result(self) -> Mapping[str, Any]:
        """Numbers for the run's summary, after the last snapshot: names -> plain values."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it must remember: tensors and plain values. A resumed run's rows equal an undisturbed one's."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def make_instruments(found: Sequence[partial[Instrument]], options: Mapping[str, Any]) -> list[Instrument]:
    """The instruments of a group's file. One that can write rows of single units is told of how many: `units`."""

    def shared(make: partial[Instrument]) -> dict[str, Any]:
        wants = "units" in signature(make.func).parameters and "units" not in make.keywords
        return {"units": options.get("units", 0)} if wants else {}

    return [make(**shared(make)) for make in found]
