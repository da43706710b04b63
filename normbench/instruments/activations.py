"""The values inside each block: moments and percentiles, distributions, along a sequence; what its units do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from normbench.instruments.distances import moments
from normbench.instruments.instrument import Instrument, Row, StackedInstrument
from normbench.instruments.probe import BN_MODES, Probe, by_unit, quantiles
from normbench.training.loop import Step

PERCENTILES = {"p01": 0.01, "p15": 0.15, "p50": 0.50, "p85": 0.85, "p99": 0.99}
LEVELS = tuple(k / 32 for k in range(33))
BINS = 64
QUANTILES, COUNTS = [f"q{k:02}" for k in range(len(LEVELS))], [f"h{k:02}" for k in range(BINS)]
# The slope outside is less than a fifth of the largest for the sigmoid, a sixteenth for tanh.
SATURATED: dict[type, tuple[float, float]] = {nn.Sigmoid: (0.05, 0.95), nn.Tanh: (-0.97, 0.97)}


def layers_and_units(probe: Probe, bn_modes: Sequence[str], units: int) -> Iterator[tuple[list[Row], Tensor, Tensor]]:
    """The beginnings of R rows, their values [R, M], and at most POOL of each in ascending order: of each tensor of
    each block the row of all its values, then, in bn_mode "probe", those of single units.

    The units are the same in each snapshot and scheme.
    """
    for bn_mode in (bn_mode for bn_mode in probe.bn_modes if bn_mode in bn_modes):
        for key, values in probe.tensors(bn_mode).items():
            row: Row = {"layer": key[0], "tensor": key[1], "bn_mode": bn_mode, "unit": ""}
            yield [row], values.reshape(1, -1), probe.pool(key, bn_mode).unsqueeze(0)
            if bn_mode == "probe" and (chosen := evenly_spaced_units(values.shape[1], units)):
                rows = [row | {"unit": unit} for unit in chosen]
                yield rows, by_unit(values[:, chosen]), probe.ordered(key)[chosen]


def evenly_spaced_units(units: int, count: int) -> list[int]:
    """`count` of the units."""
    count = min(count, units)
    return [round(i * (units - 1) / max(count - 1, 1)) for i in range(count)]


class Activations(StackedInstrument):
    """Of each tensor of each block, over the probe's images and positions, in each bn_mode:

        count            values
        mean, std, skew  m, s = sqrt(mean (z - m)^2), mean ((z - m) / s)^3
        p01 ... p99      percentiles

    Rows with a `unit` are of that unit alone (bn_mode "probe"), the others of the whole layer. The run's option
    `instruments.units` says how many units of each layer have rows of their own.
    """

    name = "activations"
    columns = ("bn_mode", "unit", "count", "mean", "std", "skew", *PERCENTILES)

    @classmethod
    def measure_stack(cls, members: Sequence[Self], step: Step, probes: Sequence[Probe]) -> list[list[Row]]:
        units = members[0].setting.units
        found = [one for probe in probes for one in layers_and_units(probe, BN_MODES, units)]
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, (_, values, ordered) in enumerate(found):
            by_size[values.shape[1], ordered.shape[1]].append(i)
        numbers: dict[int, list[list[float]]] = {}  # of each of `found`, [R][8]
        for same in by_size.values():  # layers of one size together: few operations, which cost more than their values
            of_values = moments_and_skew(torch.cat([found[i][1] for i in same]))
            of_ordered = quantiles(torch.cat([found[i][2] for i in same]), list(PERCENTILES.values()))
            each = iter(torch.cat((of_values, of_ordered), 1).tolist())
            numbers |= {i: [next(each) for _ in found[i][0]] for i in same}
        own, per_network = [list[Row]() for _ in members], len(found) // len(members)
        for i, (rows, values, _) in enumerate(found):
            for row, computed in zip(rows, numbers[i], strict=True):
                named = dict(zip(cls.columns[3:], computed, strict=True))
                own[i // per_network].append({**row, "count": values.shape[1], **named})
        return own


def moments_and_skew(values: Tensor) -> Tensor:
    """Mean, standard deviation and skew of each row, NaN where all values are equal. Shape: [R, M] -> float64 [R, 3]

    On a CPU 4 times as fast as torch.var_mean.
    """
    mean = values.mean(1, keepdim=True)
    deviation = values - mean
    square = deviation * deviation
    std = square.mean(1).sqrt()
    skew = square.mul_(deviation).mean(1) / std**3
    return torch.stack((mean.squeeze(1), std, skew), 1).double()


class Distributions(Instrument):
    """Of each tensor of each block, over the probe's images and positions:

        low, high    least and greatest value
        q00 ... q32  quantiles at k / 32, by sorting
        h00 ... h63  values in 64 equal bins from low to high

    Quantiles and counts are of at most POOL values. Rows with a `unit` are as in Activations, without counts. All is
    NaN where a value is not finite.

    Args:
        bn_modes: as far as they make a difference.
    """

    name = "distributions"
    columns = ("bn_mode", "unit", "low", "high", *QUANTILES, *COUNTS)

    def __init__(self, *, bn_modes: Sequence[str] = ("probe",)) -> None:
        self.bn_modes = bn_modes

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        names = ("low", "high", *QUANTILES, *COUNTS)
        for rows, values, ordered in layers_and_units(probe, self.bn_modes, self.setting.units):
            ends = torch.stack((values.amin(1), values.amax(1)), 1).tolist()
            middle = quantiles(ordered, LEVELS).tolist()
            for row, (low, high), inside, each in zip(rows, ends, middle, ordered, strict=True):
                pooled, finite = row["unit"] == "", math.isfinite(low) and math.isfinite(high)
                numbers = [low, high, *inside, *(histogram(each, low, high) if pooled and finite else ())]
                if not finite:
                    numbers = [math.nan] * (2 + len(LEVELS) + BINS * pooled)
                yield row | dict(zip(names, numbers, strict=False))


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
    columns = ("bn_mode", "time", "mean", "std")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for bn_mode in probe.bn_modes:
            for (layer, tensor), values in probe.tensors(bn_mode).items():
                if times := probe.times(layer):
                    by_time = values.movedim(2, 0).flatten(1)  # [N, C, T] -> [T, N * C]
                    row: Row = {"layer": layer, "tensor": tensor, "bn_mode": bn_mode}
                    for time, mean, std in zip(times, *moments(by_time), strict=True):
                        yield row | {"time": time, "mean": mean, "std": std}


class Units(StackedInstrument):
    """Of the `activation` a of each block, over the probe's images and positions (bn_mode "probe"):

        zeros         share of values that are 0
        dead          share of units that never vary: with ReLU, those whose input is 0 or less at every image
        saturated     share of values outside [.05, .95] (sigmoid), [-.97, .97] (tanh); empty for all else
        dormant       share of units j with E|a_j| <= tau mean_k E|a_k|
        cosine        mean over pairs of images i, i' of cos(a_i, a_i')
        stable_rank   tr(M) / ||M||_2, M_ii' = cos(a_i, a_i')

    The last two take the first `images` of the probe, each with all its units and positions (or time steps) as one
    vector, and leave out those whose vector is 0. A recurrent cell's activation is h, which mixes gates and tanh: small
    values don't mean that nothing is saturated, so it has no `saturated`.

    Args:
        tau: below this share of the layer's mean activity a unit is dormant.
        images: at most so many are compared; the stable rank can't be larger.

    Source: dormant: Sokar et al. 2023, arXiv:2302.12902, definition 3.1; cosine, stable rank: Lubana et al. 2021,
        arXiv:2106.05956; saturation: Glorot & Bengio 2010.
    """

    name = "units"
    columns = ("units", "zeros", "dead", "saturated", "dormant", "cosine", "stable_rank")

    def __init__(self, *, tau: float = 0.025, images: int = 128) -> None:
        self.tau, self.images = tau, images

    @classmethod
    def measure_stack(cls, members: Sequence[Self], step: Step, probes: Sequence[Probe]) -> list[list[Row]]:
        one, rows = members[0], [list[Row]() for _ in members]
        for key in probes[0].tensors():
            if key[1] == "activation":
                block: Any = probes[0].blocks[key[0]]
                a = torch.stack([probe.tensors()[key] for probe in probes])
                numbers = shares(a, one.tau, SATURATED.get(type(getattr(block, "activation", None))))
                numbers |= likeness(a[:, : one.images].flatten(2))
                for k, of in enumerate(rows):
                    own = {name: number[k] for name, number in numbers.items()}
                    of.append({"layer": key[0], "tensor": key[1], "units": a.shape[2], "saturated": "", **own})
        return rows


def shares(a: Tensor, tau: float, bounds: tuple[float, float] | None = None) -> dict[str, list[float]]:
    """Of activations [K, N, C, P]: the shares of zeros, of dead and dormant units, of values outside of `bounds`."""
    values, activity = a.flatten(1), a.abs().mean((1, 3))  # [K, M], [K, C]
    found = {
        "zeros": (values == 0).float().mean(1),
        "dead": (a.amax((1, 3)) == a.amin((1, 3))).float().mean(1),
        "dormant": (activity <= tau * activity.mean(1, keepdim=True)).float().mean(1),
    }
    if bounds is not None:
        found["saturated"] = ((values < bounds[0]) | (values > bounds[1])).float().mean(1)
    return {name: share.tolist() for name, share in found.items()}


def likeness(a: Tensor) -> dict[str, list[float]]:
    """Mean `cosine` of two rows of `a` [K, N, D], and the `stable_rank` of the matrix of all; NaN if none is left.

    With u the rows at length 1: mean cosine = (|sum u|^2 - N) / (N (N - 1)); u u^T has the trace N, and its largest
    eigenvalue is also that of u^T u, whichever is smaller. On the CPU, which is faster at so small a matrix than a GPU.
    """
    a = a.cpu()
    length = a.norm(dim=-1, keepdim=True)
    u = torch.where(length == 0, 0.0, a / length)
    n = length.count_nonzero((1, 2))
    # a length may overflow before the values do
    known = (n > 1) & (u.isfinite() & length.isfinite()).flatten(1).all(1)
    u = u.where(known.view(-1, 1, 1), 0.0)
    # double: of a matrix with many equal eigenvalues, as dead units make them, LAPACK finds none in single precision
    gram = (u @ u.mT if u.shape[1] <= u.shape[2] else u.mT @ u).double()
    cosine = (u.sum(1).square().sum(1) - n) / (n * (n - 1))
    found = {"cosine": cosine, "stable_rank": n / torch.linalg.eigvalsh(gram)[:, -1]}
    return {name: number.where(known, math.nan).tolist() for name, number in found.items()}
