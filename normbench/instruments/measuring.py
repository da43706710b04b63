"""The instruments of one run: what they look at, when, into which tables, and at what cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn, optim

from normbench.data import Dataset
from normbench.instruments import Instrument, Probe, Setting, snapshots
from normbench.norms import blocks
from normbench.runs import RunFolder
from normbench.training.loop import Step, Update

DIGITS = 7  # of each number: as many as float32 has
WIDEST = DIGITS + 7  # characters of such a number: -1.234567e-10,
NAMES = 5 * WIDEST + 32  # of a row's position, layer and tensor


def bytes_at_most(instruments: Sequence[Instrument], config: Mapping[str, Any], model: nn.Module, total: int) -> int:
    """How large the instruments' tables can become, however long the run is."""
    if not instruments:
        return 0
    options = config["instruments"]
    layers = [block for _, block in blocks(model)]
    times = max((min(block.steps, options["positions"]) for block in layers), default=1)
    looks = len(snapshots(options["schedule"], total, options["snapshots"]))
    rows = {i: i.rows(3 * len(layers), times) * (looks if i.when == "snapshots" else 1) for i in instruments}
    return sum(count * (NAMES + WIDEST * len(instrument.columns)) for instrument, count in rows.items())


class Measuring:
    """Lets each instrument look at its time and writes what it saw.

    Args:
        config: the run's; its group `instruments` says what they look at.
        seconds: the run's clock, for those that measure time.
    """

    def __init__(
        self,
        instruments: list[Instrument],
        config: Mapping[str, Any],
        model: nn.Module,
        dataset: Dataset,
        total: int,
        optimizer: optim.Optimizer,
        update: Update,
        folder: RunFolder,
        seconds: Callable[[], Mapping[str, float]],
    ) -> None:
        self.instruments, self.model, self.folder = instruments, model, folder
        self.cost = {instrument.name: 0.0 for instrument in instruments}  # seconds; the first pays for the shared pass
        if not instruments:
            return
        options, batch_size = config["instruments"], config["batch_size"]
        places = torch.arange(min(options["probe"], len(dataset.validation)), device=config["device"])
        chosen = {"positions": options["positions"], "layers": options["layers"], "kinds": options["tensors"]}
        self.probe = Probe(model, *dataset.validation.batch(places), batch_size, **chosen)
        setting = Setting(
            total=total,
            snapshots=snapshots(options["schedule"], total, options["snapshots"]),
            batch_size=batch_size,
            train=dataset.train,
            validation=dataset.validation,
            images=min(options["images"] or len(dataset.train), len(dataset.train)),
            optimizer=optimizer,
            update=update,
            seconds=seconds,
        )
        for instrument in instruments:
            instrument.prepare(setting)

    def due(self, index: int) -> list[Instrument]:
        return [instrument for instrument in self.instruments if instrument.due(index)]

    def measure(self, due: list[Instrument], step: Step, position: Mapping[str, Any]) -> None:
        """Let those that are due look, and write their rows, each with the `position` in training."""
        self.probe.forget()
        for instrument in due:
            begin = time.perf_counter()
            rows = [{**position, **row} for row in instrument.measure(step, self.model, self.probe)]
            self.folder.measured[instrument.name].append(
                {key: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for key, v in row.items()} for row in rows
            )
            self.cost[instrument.name] += time.perf_counter() - begin
        self.probe.forget()  # its tensors would lie in memory until the next snapshot

    def results(self) -> dict[str, Any]:
        """What the run's summary says of what was measured."""
        results = {instrument.name: dict(instrument.result()) for instrument in self.instruments}
        return {"measured": {k: v for k, v in results.items() if v}, "measuring_seconds": dict(self.cost)}

    def state_dict(self) -> dict[str, Any]:
        return {"cost": self.cost, "instruments": [instrument.state_dict() for instrument in self.instruments]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.cost = dict(state["cost"])
        for instrument, its_state in zip(self.instruments, state["instruments"], strict=True):
            instrument.load_state_dict(its_state)
