"""How far the values inside each block have moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from normbench.instruments.distances import NUMBERS, Pair, Values, distances, moments
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import BN_MODES, Probe, ascending, by_unit
from normbench.norms import blocks
from normbench.training.loop import Step

SUMMED = [name for name in NUMBERS if name.startswith(("w1", "moved"))]  # along the path
Key = tuple[str, str, str]  # bn_mode, layer, tensor


class Shift(Instrument):
    """How far each tensor of each block has moved: the probe's values z now against z' at another time.

    `distances` has the formulas: per unit, then median, mean and 90th percentile over units. `since` says what z' is:

        previous  z at the snapshot before
        start     z at the first snapshot
        path      the w1 and moved of "previous", summed from the first snapshot on. More snapshots make a longer path:
                  compare only those over the same snapshots (`snapshots`: how many sums it has)
        halves    both are now: z of one half of the probe's images, z' of the other. For scale: what another choice of
                  images would change

    `moved` stands beside `w1` because a norm can pin the distribution while every image moves: in the second layer of
    an MLP, scaled, from the start to step 500 on MNIST, 0.86 and 0.10 with batch norm, 1.22 and 1.00 without a norm.

    Args:
        bn_modes: "running" is no measure of a shift: early on it shows lagging averages.
        sample: js and "halves", costly, are of at most so many units of a tensor, evenly spaced; None: of all.
    """

    name = "shift"
    columns: Sequence[str] = ("bn_mode", "since", "since_step", "snapshots", "units", "constant", *NUMBERS)

    def __init__(self, *, bn_modes: Sequence[str] = ("probe",), sample: int | None = 16) -> None:
        if unknown := set(bn_modes) - set(BN_MODES):
            raise ValueError(f"Shift.bn_modes are of {', '.join(BN_MODES)}: got {', '.join(sorted(unknown))}.")
        if sample is not None and sample < 1:
            raise ValueError(f"Shift.sample must be 1 or more, or null: got {sample}.")
        self.bn_modes, self.sample = tuple(bn_modes), sample
        self._values: dict[str, dict[Key, Values]] = {}  # at "start" and "previous"
        self._steps: dict[str, int] = {}  # of those
        self._path: dict[Key, dict[str, float]] = {}
        self._sums = 0  # that the path has
        self._result: dict[str, float] = {}

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        now = {
            (bn_mode, *key): Values.of(values, probe.ordered(key, bn_mode))
            for bn_mode in probe.bn_modes
            if bn_mode in self.bn_modes
            for key, values in probe.tensors(bn_mode).items()
        }
        every = [1 if self.sample is None else math.ceil(len(z.mean) / self.sample) for z in now.values()]
        compared = [(since, key) for since in (*self._values, "halves") for key in now]
        pairs = [(z, then[key]) for then in self._values.values() for key, z in now.items()]
        pairs += halves(list(now.values()), every)
        found = distances(pairs, every * len(self._values) + [1] * len(now))
        self._sums += "previous" in self._values
        outputs: dict[str, float] = {}  # of each block: its last tensor
        for (since, key), (z, _), (constant, numbers) in zip(compared, pairs, found, strict=True):
            bn_mode, layer, tensor = key
            row: Row = {"layer": layer, "tensor": tensor, "bn_mode": bn_mode, "since": since,
                        "since_step": self._steps.get(since, step.index), "units": len(z.mean),
                        "constant": constant}  # fmt: skip
            if since == "halves":  # of different images
                numbers = {name: value for name, value in numbers.items() if not name.startswith("moved")}
            yield row | numbers
            if since == "previous":
                path = self._path.setdefault(key, dict.fromkeys(SUMMED, 0.0))
                for name in SUMMED if constant < len(z.mean) else ():  # while no unit varies, the path does not grow
                    path[name] += numbers[name]
                yield row | {"since": "path", "since_step": self._steps["start"], "snapshots": self._sums} | path
            elif since == "start" and bn_mode == "probe":
                outputs[layer] = numbers["w1_scaled_mean"]
        order = pairwise(name for name, _ in blocks(model))
        self._result = {layer: outputs[before] for before, layer in order if before in outputs}
        self._values = {"start": self._values.get("start", now), "previous": now}
        self._steps = {"start": self._steps.get("start", step.index), "previous": step.index}

    def result(self) -> dict[str, float]:
        """How far the input of each block but the first has moved since the start, in bn_mode "probe".

        The mean over units of w1_scaled, of what the block before it passes on: its last tensor.
        """
        return self._result

    def state_dict(self) -> dict[str, Any]:
        values = {since: {key: z.by_image for key, z in then.items()} for since, then in self._values.items()}
        path = {key: dict(numbers) for key, numbers in self._path.items()}
        return {"values": values, "steps": self._steps, "path": path, "sums": self._sums, "result": self._result}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._values = {
            since: {key: Values.of(z, ascending(by_unit(z))) for key, z in values.items()}
            for since, values in state["values"].items()
        }
        self._steps, self._sums, self._result = state["steps"], state["sums"], state["result"]
        self._path = {key: dict(numbers) for key, numbers in state["path"].items()}


def halves(now: Sequence[Values], every: Sequence[int]) -> list[Pair]:
    """Of each tensor every n-th unit, in one half of the images and in the other."""
    parts = []
    for z, n in zip(now, every, strict=True):
        assert z.by_image is not None
        half = len(z.by_image) // 2
        parts.append(z.by_image[: 2 * half, ::n].unflatten(0, (2, half)).transpose(1, 2).flatten(2))  # [2, C, N/2 * P]
    found: dict[int, Pair] = {}
    for length in {part.shape[2] for part in parts}:  # those of one length at once
        members = [i for i, part in enumerate(parts) if part.shape[2] == length]
        ordered = ascending(torch.cat([parts[i] for i in members], 1))
        sizes = [parts[i].shape[1] for i in members]
        split = [numbers.split(sizes, 1) for numbers in (ordered, *moments(ordered))]
        for i, o, mean, std in zip(members, *split, strict=True):
            found[i] = Values(None, o[0], mean[0], std[0]), Values(None, o[1], mean[1], std[1])
    return [found[i] for i in range(len(now))]
