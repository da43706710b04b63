"""The images that instruments measure on, and the tensors that a network shows for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from fnmatch import fnmatch
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from normbench.noise import set_draw
from normbench.norms import (
    Recorded,
    batch_statistics,
    blocks,
    keep_buffers,
    preserve_state,
    record_activations,
    uses_batch,
)
from normbench.norms.block import TENSORS

Key = tuple[str, str]  # layer, tensor
BN_MODES = ("probe", "batch", "running")  # see `in_bn_mode`
# Values of a whole tensor that percentiles are taken of: sorting is what costs most. For normal values the median is
# then known to 0.01 standard deviations, percentiles 1 and 99 to 0.03; and it is the same images at each snapshot.
POOL = 2**14
GROUPS, IN_GROUPS = 64, 256  # at most so many mini-batches, and images in them, are taken with bn_mode "batch"


def in_bn_mode(model: nn.Module, bn_mode: str) -> AbstractContextManager[None]:
    """Inside, `model` may be run at will, without dropout and noise; afterwards it is as it was.

    Args:
        bn_mode: the statistics that layers work with that use the batch. "probe" or "batch": those of the images passed
            through. With the whole probe, a shift shows the effect of the weights alone; with mini-batches, what the
            next layer sees while learning. "running": their averages, as in evaluation. These lag behind: at step 0
            they are 0 and 1, and turned a shift of 0.17 standard deviations into 13.8, measured.
    """
    return preserve_state(model) if bn_mode == "running" else batch_statistics(model)


class Probe:
    """A fixed set of validation images, the same for every run of a study, passed through the model once a snapshot.

    All instruments share that pass: `tensors()` runs the model only if it has not been run since `forget()`.

    Args:
        batch_size: the run's own, for bn_mode "batch".
        positions: at most how many positions of a convolution's output, or time steps, are taken per image. Time
            steps are evenly spaced, positions drawn once: always the same.
        layers: patterns of the names of blocks to record, such as ["hidden*"]; None: all.
        kinds: which of the tensors linear, normalized, activation; None: all.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        positions: int = 32,
        layers: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.batch_size, self.positions = min(batch_size, len(images)), positions
        self._recorded = [(n, b) for n, b in blocks(model) if layers is None or any(fnmatch(n, p) for p in layers)]
        self._kinds = kinds
        self._tensors: dict[str, dict[Key, Tensor]] = {}
        self._sorted: dict[tuple[str, str, Key], Tensor] = {}
        self._positions: dict[str, Tensor] = {}  # layer -> the positions or time steps that are taken

    @property
    def bn_modes(self) -> tuple[str, ...]:
        """If any layer uses the batch, the statistics that it works with make a difference."""
        return BN_MODES if any(uses_batch(module) for module in self.model.modules()) else BN_MODES[:1]

    def of(self, images: Tensor, labels: Tensor) -> Probe:
        """The same tensors, of other images."""
        other = copy(self)
        other.images, other.labels, other.batch_size = images, labels, min(self.batch_size, len(images))
        other._tensors, other._sorted = {}, {}
        return other

    def forget(self) -> None:
        """The model has changed: run it anew when asked."""
        self._tensors.clear()
        self._sorted.clear()

    def tensors(self, bn_mode: str = "probe") -> dict[Key, Tensor]:
        """{(layer, tensor): values [N, C, P]}: images x units x the chosen positions or time steps (P = 1 if neither).

        Args:
            bn_mode: "probe": with the statistics of the whole probe; "batch": of the probe's first images in
                mini-batches of the run's own size (full ones only, at most GROUPS); "running": of running averages.
        """
        if bn_mode not in self._tensors:
            images = self.images
            if bn_mode == "batch":
                most = max(1, min(len(images), IN_GROUPS) // self.batch_size)
                images = images[: min(most, GROUPS) * self.batch_size]
            groups = images.split(self.batch_size) if bn_mode == "batch" else (images,)
            self._tensors[bn_mode] = self._record(groups, bn_mode)
        return self._tensors[bn_mode]

    def ordered(self, key: Key, bn_mode: str = "probe") -> Tensor:
        """The values of each unit in ascending order [C, N * P]."""
        return self._ascending("units", by_unit, key, bn_mode)

    def pool(self, key: Key, bn_mode: str = "probe") -> Tensor:
        """At most POOL of all values of a tensor, in ascending order."""
        return self._ascending("pool", pooled, key, bn_mode)

    def _ascending(self, what: str, values: Callable[[Tensor], Tensor], key: Key, bn_mode: str) -> Tensor:
        if (what, bn_mode, key) not in self._sorted:
            self._sorted[what, bn_mode, key] = ascending(values(self.tensors(bn_mode)[key]))
        return self._sorted[what, bn_mode, key]

    def times(self, layer: str) -> list[int]:
        """Which time steps of a recurrent layer are the last axis of its tensors, counted from 0; else empty."""
        recurrent = any(name == layer and block.recurrent for name, block in self._recorded)
        return self._positions[layer].tolist() if recurrent and layer in self._positions else []

    def _record(self, groups: Sequence[Tensor], bn_mode: str) -> dict[Key, Tensor]:
        parts: dict[Key, list[Tensor]] = {}
        with in_bn_mode(self.model, bn_mode):
            restore = keep_buffers(self.model)
            for i, images in enumerate(groups):
                set_draw(self.model, -1 - i)  # of no training step, and each group's own
                found: dict[Key, list[Tensor]] = {}
                with record_activations(self._recorded, partial(self._recorder, found)):
                    self.model(images)
                for key, values in found.items():
                    parts.setdefault(key, []).append(torch.stack(values, 2) if len(values) > 1 else values[0])
                restore()  # batch renorm works with its running statistics in training, too
        return {key: torch.cat(values) if len(values) > 1 else values[0] for key, values in parts.items()}

    def _recorder(self, found: dict[Key, list[Tensor]], layer: str, block: Recorded) -> Callable[[str, Tensor], None]:
        return self._of_steps(layer, block, found) if block.recurrent else self._of_positions(layer, found)

    def _of_positions(self, layer: str, found: dict[Key, list[Tensor]]) -> Callable[[str, Tensor], None]:
        def observe(kind: str, value: Tensor) -> None:
            if self._kinds is None or kind in self._kinds:
                value = value.flatten(2) if value.dim() > 2 else value.unsqueeze(2)  # [N, C, P]
                count = value.shape[2]
                if layer not in self._positions:
                    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: self.positions]
                    self._positions[layer] = chosen.sort().values.to(value.device)
                all_of_them = count <= self.positions
                found[layer, kind] = [value if all_of_them else value.index_select(2, self._positions[layer])]

        return observe

    def _of_steps(self, layer: str, block: Recorded, found: dict[Key, list[Tensor]]) -> Callable[[str, Tensor], None]:
        if layer not in self._positions:
            chosen = np.linspace(0, block.steps - 1, min(self.positions, block.steps)).round().astype(int)
            self._positions[layer] = torch.from_numpy(np.unique(chosen))
        chosen_steps, counts = set(self._positions[layer].tolist()), dict.fromkeys(TENSORS, 0)

        def observe(kind: str, value: Tensor) -> None:
            t = counts[kind]
            counts[kind] += 1
            if t in chosen_steps and (self._kinds is None or kind in self._kinds):
                found.setdefault((layer, kind), []).append(value if len(chosen_steps) > 1 else value.unsqueeze(2))

        return observe


def pooled(values: Tensor) -> Tensor:
    """At most POOL values of a layer [N, C, P], flat: those of the same images and positions at each snapshot."""
    n, c, p = values.shape
    if values.numel() <= POOL:
        return values.flatten()
    chosen = torch.randperm(n * p, generator=torch.Generator().manual_seed(0))[: max(1, POOL // c)].to(values.device)
    return values[chosen // p, :, chosen % p].flatten()


def by_unit(values: Tensor) -> Tensor:
    """[N, C, P] -> [C, N * P], a row per unit."""
    return values.movedim(1, 0).flatten(1)


def ascending(values: Tensor) -> Tensor:
    """Each row in ascending order, NaN last. numpy's sort uses SIMD on a CPU: 20 times torch's there, measured."""
    return (
        torch.from_numpy(np.sort(values.contiguous().numpy())) if values.device.type == "cpu" else values.sort().values
    )


def quantiles(ordered: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles of each row of ascending values [..., M] -> [..., len(levels)] in float64; NaN where a value is.

    Interpolated linearly between two values, as numpy.quantile does.
    """
    places = torch.tensor(levels, device=ordered.device, dtype=torch.float64) * (ordered.shape[-1] - 1)
    low, high = ordered[..., places.floor().long()].double(), ordered[..., places.ceil().long()].double()
    between = torch.where(low == high, low, low + (high - low) * (places - places.floor()))  # infinity is itself
    return between.masked_fill(ordered[..., -1:].isnan(), torch.nan)  # NaN sorts last
