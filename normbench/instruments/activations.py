"""How the values inside each block are distributed, and how far they have moved since the start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Row
from normbench.instruments.observing import tensors_of
from normbench.instruments.schedule import log_spaced
from normbench.training import Step

PERCENTILES = {"p01": 0.01, "p15": 0.15, "p50": 0.50, "p85": 0.85, "p99": 0.99}
POOL = 2**17  # values per tensor that percentiles are taken of; the error of a percentile is then below 0.3%


class Activations:
    """Per block and tensor, over the probe's images (and positions, and time steps):

        mean, std     of all values of the layer
        p01 ... p99   percentiles of all values of the layer
        drift         mean over units of |mean_t - mean_0| / sqrt((s_t^2 + s_0^2) / 2)

    mean_t and s_t are a unit's mean and standard deviation after t updates. `drift` is in standard deviations, so that
    it can be compared across schemes; units that are constant at both times have none and are left out.
    Batch norms are probed with the statistics of the probe itself, not the running ones.

    Args:
        snapshots: at most how many.
        schedule: (total steps, snapshots) -> steps.
    """

    name = "activations"
    columns = ("units", "mean", "std", *PERCENTILES, "drift")

    def __init__(self, *, snapshots: int = 40, schedule: Callable[[int, int], list[int]] = log_spaced) -> None:
        if snapshots < 2:
            raise ValueError(f"instruments.snapshots must be 2 or more (the start and the end): got {snapshots}.")
        self.snapshots, self.schedule = snapshots, schedule
        self._due: frozenset[int] = frozenset()
        self._start: dict[str, Tensor] = {}  # "layer/tensor" -> [2, C]: each unit's mean and variance at step 0

    def prepare(self, total: int) -> None:
        self._due = frozenset(self.schedule(total, self.snapshots))

    def due(self, index: int) -> bool:
        return index in self._due

    def measure(self, step: Step, model: nn.Module, probe: Tensor) -> Iterator[Row]:
        for (layer, name), values in tensors_of(model, probe).items():
            var, mean = torch.var_mean(values, (0, *range(2, values.dim())), correction=0)
            start = self._start.setdefault(f"{layer}/{name}", torch.stack((mean, var)))
            moved = drift(mean, var, *start)
            numbers = torch.stack((mean.mean(), (var.mean() + mean.var(correction=0)).sqrt(), moved)).tolist()
            row: Row = {"layer": layer, "tensor": name, "units": len(mean)}
            row.update(zip(("mean", "std", "drift"), numbers, strict=True))
            row.update(zip(PERCENTILES, quantiles(pooled(values), list(PERCENTILES.values())), strict=True))
            yield row

    def state_dict(self) -> dict[str, Any]:
        return dict(self._start)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start = dict(state)


def drift(mean: Tensor, var: Tensor, start_mean: Tensor, start_var: Tensor) -> Tensor:
    """Mean over units of |mean - start_mean| over the root mean square of both standard deviations; all [C] -> []."""
    scale = ((var + start_var) / 2).sqrt()
    constant = scale == 0
    moved = torch.where(constant, 0.0, (mean - start_mean).abs() / scale)
    return moved.sum() / (~constant).sum()  # NaN for a layer that diverged, and for one that is wholly constant


def pooled(values: Tensor) -> Tensor:
    """At most POOL of a layer's values [N, C, ...], as [K, C]: the same examples and positions at each snapshot."""
    rows = values.flatten(2).movedim(1, 2) if values.dim() > 2 else values.unsqueeze(1)  # [N, P, C]
    n, p, c = rows.shape
    if rows.numel() <= POOL:
        return rows.reshape(-1, c)
    chosen = torch.randperm(n * p, generator=torch.Generator().manual_seed(0))[: max(1, POOL // c)].to(rows.device)
    return rows[chosen // p, chosen % p]


def quantiles(values: Tensor, levels: list[float]) -> list[float]:
    """Quantiles of all `values`, interpolated linearly between order statistics, as numpy.quantile does."""
    flat = values.flatten().float()
    on_cpu = flat.device.type == "cpu"
    ordered = torch.from_numpy(np.sort(flat.numpy())) if on_cpu else flat.sort().values  # on a CPU 20 times faster
    places = torch.tensor(levels, device=flat.device, dtype=torch.float64) * (len(flat) - 1)
    low, high = ordered[places.floor().long()].double(), ordered[places.ceil().long()].double()
    found = (low + (high - low) * (places - places.floor())).tolist()
    return [math.nan] * len(levels) if ordered[-1].isnan() else found  # NaN sorts last, and leaves no quantile known
