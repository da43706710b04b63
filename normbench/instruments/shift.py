"""How far the values inside each block have moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

from normbench.instruments.distances import NUMBERS, Values, distances
from normbench.instruments.instrument import Row, StackedInstrument
from normbench.instruments.probe import BN_MODES, Probe, ascending, by_unit, joined
from normbench.norms import blocks
from normbench.training.loop import Step

SUMMED = [name for name in NUMBERS if name.startswith(("w1", "moved"))]  # along the path
Key = tuple[str, str, str]  # bn_mode, layer, tensor


class Shift(StackedInstrument):
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
    columns = ("bn_mode", "since", "since_step", "snapshots", "units", "constant", *NUMBERS)
    remembers = ("steps", "path", "result")

    def __init__(self, *, bn_modes: Sequence[str] = ("probe",), sample: int | None = 16) -> None:
        if unknown := set(bn_modes) - set(BN_MODES):
            raise ValueError(f"Shift.bn_modes are of {', '.join(BN_MODES)}: got {', '.join(sorted(unknown))}.")
        if sample is not None and sample < 1:
            raise ValueError(f"Shift.sample must be 1 or more, or null: got {sample}.")
        self.bn_modes, self.sample = tuple(bn_modes), sample
        self.values: dict[str, dict[Key, Values]] = {}  # at "start" and "previous"
        self.steps: dict[str, int] = {}  # of those
        self.path: dict[Key, dict[str, float]] = {}

    @classmethod
    def measure_stack(cls, members: Sequence[Self], step: Step, probes: Sequence[Probe]) -> Iterator[Iterator[Row]]:
        one, networks = members[0], len(members)
        now = {
            (bn_mode, *key): Values.of(
                joined([probe.tensors(bn_mode)[key] for probe in probes], 1),
                joined([probe.ordered(key, bn_mode) for probe in probes], 0),
            )
            for bn_mode in probes[0].bn_modes
            if bn_mode in one.bn_modes
            for key in probes[0].tensors(bn_mode)
        }
        then = {
            since: {key: Values.side_by_side([member.values[since][key] for member in members]) for key in now}
            for since in one.values
        }
        every = [1 if one.sample is None else math.ceil(len(z.mean) // networks / one.sample) for z in now.values()]
        pairs = [(z, before[key]) for before in then.values() for key, z in now.items()]
        pairs += [halves(z, n, networks) for z, n in zip(now.values(), every, strict=True)]
        found = distances(pairs, every * len(then) + [1] * len(now), networks)
        compared = [(since, key) for since in (*then, "halves") for key in now]
        own = {key: z.apart(networks) for key, z in now.items()}
        units = [len(z.mean) // networks for z, _ in pairs]
        for k, member in enumerate(members):
            numbers = [{"units": n} | of for n, of in zip(units, found[k::networks], strict=True)]
            mine = {key: values[k] for key, values in own.items()}
            yield member._rows(step, mine, dict(zip(compared, numbers, strict=True)), probes[k])

    def _rows(
        self, step: Step, now: dict[Key, Values], found: Mapping[tuple[str, Key], dict[str, float]], probe: Probe
    ) -> Iterator[Row]:
        """The rows of these numbers; `now` is remembered."""
        outputs: dict[str, float] = {}  # how far the last tensor of each block is from the start, in bn_mode "probe"
        for (since, key), numbers in found.items():
            bn_mode, layer, tensor = key
            row: Row = {"layer": layer, "tensor": tensor, "bn_mode": bn_mode, "since": since,
                        "since_step": self.steps.get(since, step.index)}  # fmt: skip
            yield row | numbers
            if since == "start" and bn_mode == "probe":
                outputs[layer] = numbers["w1_scaled_mean"]
            elif since == "previous":
                path = self.path.setdefault(key, {"snapshots": 0, **dict.fromkeys(SUMMED, 0.0)})
                path["snapshots"] += 1
                for name in SUMMED if numbers["constant"] < numbers["units"] else ():  # else the path does not grow
                    path[name] += numbers[name]
                same = {name: numbers[name] for name in ("units", "constant")}
                yield row | {"since": "path", "since_step": self.steps["start"]} | same | path
        # How far the input of each block but the first has moved since the start: what the block before it passes on.
        order = pairwise(name for name, _ in blocks(probe.model))
        self.result = {layer: outputs[before] for before, layer in order if before in outputs}
        self.values = {"start": self.values.get("start", now), "previous": now}
        self.steps = {"start": self.steps.get("start", step.index), "previous": step.index}

    def state_dict(self) -> dict[str, Any]:
        values = {since: {key: z.by_image for key, z in then.items()} for since, then in self.values.items()}
        return {**super().state_dict(), "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.values = {
            since: {key: Values.of(z, ascending(by_unit(z))) for key, z in values.items()}
            for since, values in state["values"].items()
        }


def halves(z: Values, every: int, networks: int = 1) -> tuple[Values, Values]:
    """z of one half of the images and of the other, of every n-th unit. No image is in both: not comparable so."""
    assert z.by_image is not None
    half = len(z.by_image) // 2
    sampled = z.by_image.unflatten(1, (networks, -1))[: 2 * half, :, ::every].flatten(1, 2)
    one, other = sampled.split(half)
    return Values.of(None, ascending(by_unit(one))), Values.of(None, ascending(by_unit(other)))
