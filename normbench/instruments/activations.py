"""How the values inside each block are distributed: moments and percentiles, whole distributions, along a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.distances import moments
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import BN_MODES, Probe, by_unit, quantiles
from normbench.training.loop import Step

PERCENTILES = {"p01": 0.01, "p15": 0.15, "p50": 0.50, "p85": 0.85, "p99": 0.99}
LEVELS = tuple(k / 32 for k in range(33))
BINS = 64
QUANTILES, COUNTS = [f"q{k:02}" for k in range(len(LEVELS))], [f"h{k:02}" for k in range(BINS)]


def layers_and_units(probe: Probe, bn_modes: Sequence[str], units: int) -> Iterator[tuple[Row, Tensor, Tensor]]:
    """The beginning of a row, values, and at most POOL of these in ascending order: of each tensor of each block.

    In bn_mode "probe" also of single units, the same in each snapshot and scheme.
    """
    for bn_mode in (bn_mode for bn_mode in probe.bn_modes if bn_mode in bn_modes):
        for key, values in probe.tensors(bn_mode).items():
            row: Row = {"layer": key[0], "tensor": key[1], "bn_mode": bn_mode, "unit": ""}
            yield row, values, probe.pool(key, bn_mode)
            if units and bn_mode == "probe":
                rows, ordered = by_unit(values), probe.ordered(key)
                for unit in evenly_spaced_units(len(rows), units):
                    yield row | {"unit": unit}, rows[unit], ordered[unit]


def evenly_spaced_units(units: int, count: int) -> list[int]:
    """`count` of the units."""
    count = min(count, units)
    return [round(i * (units - 1) / max(count - 1, 1)) for i in range(count)]


class Activations(Instrument):
    """Of each tensor of each block, over the probe's images and positions, in each bn_mode:

        count            values
        mean, std, skew  m, s = sqrt(mean (z - m)^2), mean ((z - m) / s)^3
        p01 ... p99      percentiles

    Rows with a `unit` are of that unit alone (bn_mode "probe"), the others of the whole layer. The run's option
    `instruments.units` says how many units of each layer have rows of their own.
    """

    name = "activations"
    columns: Sequence[str] = ("bn_mode", "unit", "count", "mean", "std", "skew", *PERCENTILES)

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for row, values, ordered in layers_and_units(probe, BN_MODES, self.setting.units):
            mean, std, skew = three_moments(values).tolist()
            found = {"count": values.numel(), "mean": mean, "std": std, "skew": skew}
            levels = quantiles(ordered, list(PERCENTILES.values())).tolist()
            yield row | found | dict(zip(PERCENTILES, levels, strict=True))


def three_moments(values: Tensor) -> Tensor:
    """Mean, standard deviation and skew of all values -> [3]. On a CPU 4 times as fast as torch.var_mean."""
    mean = values.mean()
    deviation = values - mean
    square = deviation * deviation
    std = square.mean().sqrt()
    skew = square.mul_(deviation).mean() / std**3  # NaN where all values are equal
    return torch.stack((mean, std, skew))


class Distributions(Instrument):
    """Of each tensor of each block, over the probe's images and positions:

        low, high    least and greatest value
        q00 ... q32  quantiles at k / 32, by sorting
        h00 ... h63  values in 64 equal bins from low to high

    Quantiles and counts are of at most POOL values. Rows with a `unit` are as in Activations. All is NaN where a value
    is not finite.

    Args:
        bn_modes: as far as they make a difference.
    """

    name = "distributions"
    columns: Sequence[str] = ("bn_mode", "unit", "low", "high", *QUANTILES, *COUNTS)

    def __init__(self, *, bn_modes: Sequence[str] = ("probe",)) -> None:
        self.bn_modes = bn_modes

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for row, values, ordered in layers_and_units(probe, self.bn_modes, self.setting.units):
            low, high = torch.stack(values.aminmax()).tolist()
            found = dict.fromkeys(("low", "high", *QUANTILES, *COUNTS), math.nan)
            if math.isfinite(low) and math.isfinite(high):
                found |= {"low": low, "high": high}
                found |= zip(QUANTILES, quantiles(ordered, LEVELS).tolist(), strict=True)
                found |= zip(COUNTS, histogram(ordered, low, high), strict=True)
            yield row | found


def histogram(ordered: Tensor, low: float, high: float) -> list[int]:
    """How many of some values in ascending order fall into each of BINS equal bins from low to high.

    A value on an edge belongs to the bin above, `high` to the last, as in numpy.histogram.
    """
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64, device=ordered.device)
    below = torch.searchsorted(ordered.contiguous(), edges[1:-1].to(ordered.dtype)).tolist()
    return [b - a for a, b in zip([0, *below], [*below, len(ordered)], strict=True)]


class TimeSteps(Instrument):
    """Of each tensor of each recurrent layer at each time step that the probe takes, in each bn_mode:

        mean, std  over images and units

    `time` counts from 0. Other layers have no rows.
    """

    name = "time_steps"
    columns: Sequence[str] = ("bn_mode", "time", "mean", "std")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for bn_mode in probe.bn_modes:
            for (layer, tensor), values in probe.tensors(bn_mode).items():
                if times := probe.times(layer):
                    by_time = values.movedim(2, 0).flatten(1)  # [N, C, T] -> [T, N * C]
                    for time, mean, std in zip(times, *torch.stack(moments(by_time)).tolist(), strict=True):
                        yield {"layer": layer, "tensor": tensor, "bn_mode": bn_mode, "time": time, "mean": mean,
                               "std": std}  # fmt: skip
