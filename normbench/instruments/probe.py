"""The images that instruments measure on, and the tensors that a network shows for them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from fnmatch import fnmatch
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from normbench.noise import set_draw
from normbench.norms import batch_statistics, blocks, keep_buffers, preserve_state, record_activations, uses_batch
from normbench.norms.block import TENSORS

Key = tuple[str, str]  # layer, tensor
BN_MODES = ("probe", "batch", "running")  # see `in_bn_mode`
# Values of a whole tensor that percentiles are taken of: sorting is what costs most. For normal values the median is
# then known to 0.01 standard deviations, percentiles 1 and 99 to 0.03; and it is the same images at each snapshot.
POOL = 2**14
GROUPS, IN_GROUPS = 64, 256  # at most so many mini-batches, and images in them, are taken with bn_mode "batch"


def in_bn_mode(model: nn.Module, bn_mode: str) -> AbstractContextManager[None]:
    """Inside, `model` may be run at will, without dropout; afterwards it is as it was.

    Noise that is part of a norm in training (noisy batch norm) is on with "probe" and "batch", and off with "running".
    With "probe" it is the same at each snapshot, as what moves is the network; with "batch" it is that of one step,
    drawn anew at each snapshot, as the next layer sees it while learning.

    Args:
        bn_mode: the statistics that layers work with that use the batch. "probe" or "batch": those of the images passed
            through. With the whole probe, a shift shows the effect of the weights alone; with mini-batches, what the
            next layer sees while learning. "running": their averages, as in evaluation. These lag behind: at step 0
            they are 0 and 1, and turned a shift of 0.17 standard deviations into 13.8, measured.
    """
    return preserve_state(model) if bn_mode == "running" else batch_statistics(model)


class Probe:
    """A fixed set of validation images, the same for every run of a study, passed through the model once a snapshot.

    All instruments share that pass: what is computed here is kept until `forget()`.

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
        self.kinds = TENSORS if kinds is None else kinds
        self.blocks = {n: b for n, b in blocks(model) if layers is None or any(fnmatch(n, p) for p in layers)}
        self.step = 0
        self._cache: dict[Any, Any] = {}
        self.shared: Callable[[Any], Any] | None = None  # in a stack: what is kept under this name, see `stacked.py`

    @property
    def bn_modes(self) -> tuple[str, ...]:
        """If any layer uses the batch, the statistics that it works with make a difference."""
        return BN_MODES if any(uses_batch(module) for module in self.model.modules()) else BN_MODES[:1]

    def of(self, images: Tensor, labels: Tensor) -> Probe:
        """The same tensors, of other images."""
        other = copy(self)
        other.images, other.labels, other.batch_size = images, labels, min(self.batch_size, len(images))
        other._cache, other.shared = {}, None
        return other

    def forget(self, step: int | None = None) -> None:
        """The model has changed, and is at this step: run it anew when asked."""
        self._cache.clear()
        self.step = self.step if step is None else step

    def tensors(self, bn_mode: str = "probe") -> dict[Key, Tensor]:
        """{(layer, tensor): values [N, C, P]}: images x units x the chosen positions or time steps (P = 1 if neither).

        Args:
            bn_mode: "probe": with the statistics of the whole probe; "batch": of the probe's first images in
                mini-batches of the run's own size (full ones only, at most GROUPS); "running": of running averages.
        """
        found: dict[Key, Tensor] = self._kept(bn_mode, lambda: self.record(bn_mode, self.images))
        return found

    def record(self, bn_mode: str, images: Tensor) -> dict[Key, Tensor]:
        """What `tensors` shows, of these images."""
        size = self.batch_size
        most = min(GROUPS, max(1, min(len(images), IN_GROUPS) // size))
        groups = images[: most * size].split(size) if bn_mode == "batch" else (images,)
        draw = self.step if bn_mode == "batch" else None
        with in_bn_mode(self.model, bn_mode):
            found = [{key: joined(parts, 2) for key, parts in group.items()}
                     for group in self.passes(groups, self._at_positions, self.kinds, draw)]  # fmt: skip
        return {key: joined([group[key] for group in found], 0) for key in found[0]}

    def ordered(self, key: Key, bn_mode: str = "probe") -> Tensor:
        """The values of each unit in ascending order [C, N * P]."""
        return self._ascending((by_unit, key, bn_mode))

    def pool(self, key: Key, bn_mode: str = "probe") -> Tensor:
        """At most POOL of all values of a tensor, in ascending order."""
        return self._ascending((pooled, key, bn_mode))

    def _ascending(self, name: tuple[Callable[[Tensor], Tensor], Key, str]) -> Tensor:
        values, key, bn_mode = name
        found: Tensor = self._kept(name, lambda: ascending(values(self.tensors(bn_mode)[key])))
        return found

    def _kept(self, name: Any, compute: Callable[[], Any]) -> Any:
        if name not in self._cache:
            self._cache[name] = compute() if self.shared is None else self.shared(name)
        return self._cache[name]

    def times(self, layer: str) -> list[int]:
        """Which time steps of a recurrent layer are the last axis of its tensors, counted from 0; else empty."""
        block = self.blocks.get(layer)
        if block is None or not block.recurrent:
            return []
        return np.unique(np.linspace(0, block.steps - 1, min(self.positions, block.steps)).round().astype(int)).tolist()

    def passes(
        self, groups: Iterable[Tensor], take: Callable[[Tensor], Tensor], kinds: Sequence[str], draw: int | None = None
    ) -> Iterator[dict[Key, list[Tensor]]]:
        """Run the model on each group of images: {(layer, tensor): what `take` makes of it, at each chosen time step}.

        Each group has noise of its own, or all have that of one `draw`: of no training step. Each finds the model's
        buffers as they were: batch renorm works with its running statistics in training, too.
        """
        restore = keep_buffers(self.model)
        for i, images in enumerate(groups):
            set_draw(self.model, -1 - (i if draw is None else draw))
            found: dict[Key, list[Tensor]] = defaultdict(list)
            with record_activations(self.blocks.items(), partial(self._observer, found, take, kinds)):
                self.model(images)
            restore()
            yield found

    def _observer(
        self, found: dict[Key, list[Tensor]], take: Callable[[Tensor], Tensor], kinds: Sequence[str], layer: str, _: Any
    ) -> Callable[[str, Tensor], None]:
        times, calls = self.times(layer) or [0], Counter[str]()

        def observe(kind: str, value: Tensor) -> None:
            if kind in kinds and calls[kind] in times:
                found[layer, kind].append(take(value))
            calls[kind] += 1

        return observe

    def _at_positions(self, value: Tensor) -> Tensor:
        """[N, C] -> [N, C, 1]; [N, C, H, W] -> [N, C, P]: the same positions in all tensors of one size."""
        value = value.flatten(2) if value.dim() > 2 else value.unsqueeze(2)
        count = value.shape[2]
        if count <= self.positions:
            return value
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: self.positions]
        return value.index_select(2, chosen.sort().values.to(value.device))


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    return torch.cat(list(parts), axis) if len(parts) > 1 else parts[0]


def pooled(values: Tensor) -> Tensor:
    """At most POOL values of a layer [..., N, C, P] -> [..., M]: of the same images and positions at each snapshot."""
    n, c, p = values.shape[-3:]
    if n * c * p <= POOL:
        return values.flatten(-3)
    chosen = torch.randperm(n * p, generator=torch.Generator().manual_seed(0))[: max(1, POOL // c)].to(values.device)
    return values.movedim(-2, -1)[..., chosen // p, chosen % p, :].flatten(-2)


def by_unit(values: Tensor) -> Tensor:
    """[..., N, C, P] -> [..., C, N * P], a row per unit."""
    return values.movedim(-2, -3).flatten(-2)


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
