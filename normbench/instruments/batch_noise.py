"""How much mini-batches differ at the same weights, beside what an update changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Key, Probe, in_bn_mode
from normbench.norms import exact_statistics, images_at_once, load_statistics, mean_and_var, uses_batch, varies
from normbench.training.evaluation import sample_batches
from normbench.training.loop import Step

TENSORS = ("linear", "normalized")
LOWER = {"population": "running", "training": "batch"}  # how the norms work -> bn_mode


class BatchNoise(Instrument):
    """Of the run's own mini-batches b, drawn from the training set, at the same weights. For each unit with mean m_b
    and biased standard deviation s_b in a batch, s over all these images:

        noise_mean      std of m_b over b, / s: 1 / sqrt(batch) where a unit has one value per image
        noise_median    the median of that over the units; all else are means over the units
        batch_std       mean of s_b over b, / s: .56 at a batch of 2, .80 at 4 for Gaussian values
        step_drift      |mean after - mean before| / s of the last update: over the probe, as in its bn_mode "probe"
        noise_to_drift  noise_mean / step_drift: another batch, beside other weights

    Measured twice, by the column `lower`, for norms that use the batch:

        population  all of them work with their exact statistics over these images: the law
        training    all of them work with each batch's own, as in training: what happens

    In recurrent cells a unit at a time step counts as a unit. Units that don't vary are left out. Dropout is off.

    Args:
        when: "end" or "snapshots".
        batches: at most so many, of the images that the run allows. Of fewer than two there is nothing to say.
    """

    name = "batch_noise"
    columns = (
        "lower", "batches", "units", "noise_mean", "noise_median", "batch_std", "step_drift", "noise_to_drift"
    )  # fmt: skip
    remembers = ("before",)

    def __init__(self, *, when: str = "end", batches: int = 64) -> None:
        self.when, self.batches = when, batches
        self.before: dict[Key, Tensor] = {}  # units' means on the probe one update before it is time

    def due(self, index: int) -> bool:
        return super().due(index) or super().due(index + 1)

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        now = {
            key: mean_and_var(values.flatten(1) if probe.times(key[0]) else values)
            for key, values in probe.tensors().items()
            if key[1] in TENSORS
        }
        if super().due(step.index):
            drifts = {key: self._drift(key, *moments) for key, moments in now.items()}
            yield from self._rows(model, probe, drifts)
        self.before = {key: mean for key, (mean, _) in now.items()} if super().due(step.index + 1) else {}

    def _drift(self, key: Key, mean: Tensor, var: Tensor) -> float:
        """|mean after - mean before| / std, averaged over the units that vary; NaN before the first update."""
        if key not in self.before:
            return math.nan
        moved = (mean - self.before[key]).abs() / var.sqrt()
        return moved[varies(mean, var)].mean().item()

    def _rows(self, model: nn.Module, probe: Probe, drifts: dict[Key, float]) -> Iterator[Row]:
        size = self.setting.batch_size
        count = min(self.batches, self.setting.images // size)
        if count < 2:
            return
        drawn = sample_batches(self.setting.train, count * size, size, probe.images.device, self.setting.seed)
        batches = [images for images, _ in drawn]
        found: dict[Key, Tensor] = {}
        for lower, bn_mode in LOWER.items():
            if not found or any(uses_batch(module) for module in model.modules()):
                found = over_batches(model, probe, batches, bn_mode)
            for (layer, tensor), drift in drifts.items():
                row: Row = {"layer": layer, "tensor": tensor, "lower": lower, "batches": count}
                numbers = noise(*found[layer, tensor])
                ratio = numbers["noise_mean"] / drift if drift else math.nan
                yield row | numbers | {"step_drift": drift, "noise_to_drift": ratio}


def over_batches(model: nn.Module, probe: Probe, batches: Sequence[Tensor], bn_mode: str) -> dict[Key, Tensor]:
    """{(layer, tensor): mean and variance of each unit in each batch [2, batches, units]}, of the probe's tensors.

    Args:
        bn_mode: "running" with exact statistics over all batches in place of the running ones, or "batch".
    """
    with in_bn_mode(model, bn_mode):
        if bn_mode == "running":
            images = torch.cat(list(batches))[: images_at_once(model, batches[0][0])]
            load_statistics(model, exact_statistics(model, images))
        found = list(probe.passes(batches, lambda value: torch.stack(mean_and_var(value)), TENSORS))
    return {key: torch.stack([torch.cat(batch[key], 1) for batch in found], 1).double() for key in found[0]}


def noise(means: Tensor, variances: Tensor) -> Row:
    """How means and variances [batches, units] of equally large batches vary; NaN if no unit does."""
    mean, var = means.mean(0), variances.mean(0) + means.var(0, correction=0)  # of all values together
    kept = varies(mean, var)
    spread, std = (means.std(0) / var.sqrt())[kept], (variances.sqrt().mean(0) / var.sqrt())[kept]
    median = spread.quantile(0.5) if len(spread) else math.nan
    return {"units": len(spread), "noise_mean": spread.mean(), "noise_median": median, "batch_std": std.mean()}
