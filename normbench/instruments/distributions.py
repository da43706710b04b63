"""The shapes of the distributions inside each block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.activations import quantiles, tracked
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe
from normbench.training.loop import Step

LEVELS = tuple(k / 32 for k in range(33))
BINS = 64
QUANTILES, COUNTS = [f"q{k:02}" for k in range(len(LEVELS))], [f"h{k:02}" for k in range(BINS)]


class Distributions(Instrument):
    """Of each tensor of each block, over the probe's images and positions, and in each way of looking at it:

        low, high    least and greatest value
        q00 ... q32  quantiles at k / 32, by sorting
        h00 ... h63  values in 64 equal bins from low to high

    Quantiles and counts are of at most POOL values, as in Activations. Rows with a `unit` are of that unit alone (way
    "probe"), the others of the whole layer. All is NaN where a value is not finite.

    Args:
        ways: of looking at the tensors, as far as they make a difference.
        units: how many units of each layer have rows of their own, evenly spaced.
    """

    name = "distributions"
    columns: Sequence[str] = ("way", "unit", "low", "high", *QUANTILES, *COUNTS)

    def __init__(self, *, ways: Sequence[str] = ("probe",), units: int = 0) -> None:
        self.ways, self.units = ways, units

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for way in (way for way in probe.ways if way in self.ways):
            for key, values in probe.tensors(way).items():
                yield row(key, way, "", torch.stack(values.aminmax()), probe.pool(key, way))
                if self.units and way == "probe":
                    ordered = probe.ordered(key, way)
                    for unit in tracked(len(ordered), self.units):
                        yield row(key, way, unit, ordered[unit, [0, -1]], ordered[unit])


def row(key: tuple[str, str], way: str, unit: int | str, extremes: Tensor, ordered: Tensor) -> Row:
    """Of values in ascending order, all of them between the two `extremes`."""
    found: Row = {"layer": key[0], "tensor": key[1], "way": way, "unit": unit}
    low, high = extremes.tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        return found | dict.fromkeys(("low", "high", *QUANTILES, *COUNTS), math.nan)
    shape = zip((*QUANTILES, *COUNTS), (*quantiles(ordered, LEVELS), *histogram(ordered, low, high)), strict=True)
    return found | {"low": low, "high": high} | dict(shape)


def histogram(ordered: Tensor, low: float, high: float) -> list[int]:
    """How many of some values in ascending order fall into each of BINS equal bins from low to high.

    A value on an edge belongs to the bin above, `high` to the last, as in numpy.histogram.
    """
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64, device=ordered.device)
    below = torch.searchsorted(ordered.contiguous(), edges[1:-1].to(ordered.dtype)).tolist()
    return [b - a for a, b in zip([0, *below], [*below, len(ordered)], strict=True)]
