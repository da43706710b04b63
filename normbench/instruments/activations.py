"""How the values inside each block are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe, by_unit
from normbench.training.loop import Step

PERCENTILES = {"p01": 0.01, "p15": 0.15, "p50": 0.50, "p85": 0.85, "p99": 0.99}


class Activations(Instrument):
    """Of each tensor of each block, over the probe's images and positions, and in each way of looking at it:

        count            values
        mean, std, skew  m, s = sqrt(mean (z - m)^2), mean ((z - m) / s)^3
        p01 ... p99      percentiles

    Rows with a `unit` are of that unit alone (looked at in the way "probe"), the others of the whole layer.

    Args:
        units: how many units of each layer have rows of their own, evenly spaced.
    """

    name = "activations"
    columns: Sequence[str] = ("way", "unit", "count", "mean", "std", "skew", *PERCENTILES)

    def __init__(self, *, units: int = 0) -> None:
        self.units = units

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for way in probe.ways:
            for key, values in probe.tensors(way).items():
                yield self._row(key, way, "", moments(values), probe.pool(key, way))
                if self.units and way == "probe":
                    rows, ordered = by_unit(values), probe.ordered(key, way)
                    for unit in tracked(len(rows), self.units):
                        yield self._row(key, way, unit, moments(rows[unit]), ordered[unit])

    def _row(self, key: tuple[str, str], way: str, unit: int | str, numbers: Tensor, ordered: Tensor) -> Row:
        row: Row = {"layer": key[0], "tensor": key[1], "way": way, "unit": unit}
        row.update(zip(("count", "mean", "std", "skew"), numbers.tolist(), strict=True))
        row["count"] = int(row["count"])
        return row | dict(zip(PERCENTILES, quantiles(ordered, list(PERCENTILES.values())), strict=True))


def moments(values: Tensor) -> Tensor:
    """How many values, their mean, standard deviation and skew -> [4]. On a CPU 4 times as fast as torch.var_mean."""
    mean = values.mean()
    deviation = values - mean
    square = deviation * deviation
    std = square.mean().sqrt()
    skew = square.mul_(deviation).mean() / std**3  # NaN where all values are equal
    return torch.stack((torch.full_like(mean, values.numel()), mean, std, skew))


def tracked(units: int, count: int) -> list[int]:
    """`count` of the units, evenly spaced: the same in each snapshot and scheme."""
    count = min(count, units)
    return [round(i * (units - 1) / max(count - 1, 1)) for i in range(count)]


def quantiles(ordered: Tensor, levels: Sequence[float]) -> list[float]:
    """Quantiles of ascending values, interpolated linearly between them, as numpy.quantile does."""
    places = torch.tensor(levels, device=ordered.device, dtype=torch.float64) * (len(ordered) - 1)
    low, high = ordered[places.floor().long()].double(), ordered[places.ceil().long()].double()
    found = (low + (high - low) * (places - places.floor())).tolist()
    return [math.nan] * len(levels) if ordered[-1].isnan() else found  # NaN sorts last, and leaves no quantile known
