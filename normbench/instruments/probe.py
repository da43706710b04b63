"""The images that instruments look at, and the tensors that a network shows for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

Key = tuple[str, str]  # layer, tensor
# The statistics that layers work with that use the batch: of the whole probe, of mini-batches, or running averages.
WAYS = ("probe", "batch", "running")
# Values of a whole tensor that percentiles are taken of: sorting is what costs most. For normal values the median is
# then known to 0.01 standard deviations, percentiles 1 and 99 to 0.03; and it is the same images at each snapshot.
POOL = 2**14
GROUPS, IN_GROUPS = 64, 256  # at most so many mini-batches, and images in them, are looked at in the way "batch"


class Probe:
    """A fixed set of validation images, the same for every run of a study, passed through the model once a snapshot.

    All instruments share that pass: `tensors()` runs the model only if it has not been run since `forget()`.

    Args:
        batch_size: the run's own, for the way "batch".
        positions: at most how many positions of a convolution's output, or time steps, are looked at per image. Time
            steps are evenly spaced, positions drawn once: always the same.
        layers: patterns of the names of blocks to look at, such as ["hidden*"]; None: all.
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
        self._watched = [(n, b) for n, b in blocks(model) if layers is None or any(fnmatch(n, p) for p in layers)]
        self._kinds = kinds
        self._seen: dict[str, dict[Key, Tensor]] = {}
        self._ordered: dict[tuple[str, Key], Tensor] = {}
        self._pools: dict[tuple[str, Key], Tensor] = {}
        self._places: dict[str, Tensor] = {}  # layer -> the positions or time steps that are looked at

    @property
    def ways(self) -> tuple[str, ...]:
        """How to look: if any layer uses the batch, the statistics that it works with make a difference."""
        return WAYS if any(uses_batch(module) for module in self.model.modules()) else WAYS[:1]

    def of(self, images: Tensor, labels: Tensor) -> Probe:
        """The same look, at other images."""
        other = copy(self)
        other.images, other.labels, other.batch_size = images, labels, min(self.batch_size, len(images))
        other._seen, other._ordered, other._pools = {}, {}, {}
        return other

    def forget(self) -> None:
        """The model has changed: run it anew when asked."""
        self._seen.clear()
        self._ordered.clear()
        self._pools.clear()

    def tensors(self, way: str = "probe") -> dict[Key, Tensor]:
        """{(layer, tensor): values [N, C, P]}: images x units x the chosen positions or time steps (P = 1 if neither).

        Args:
            way: the statistics that layers work with that use the batch, "probe": of the whole
                probe; "batch": the probe's first images in mini-batches of the run's own size (full ones only,
                at most GROUPS); "running": their running averages.
        """
        if way not in self._seen:
            images = self.images
            if way == "batch":
                most = max(1, min(len(images), IN_GROUPS) // self.batch_size)
                images = images[: min(most, GROUPS) * self.batch_size]
            self._seen[way] = self._look(images.split(self.batch_size) if way == "batch" else (images,), way)
        return self._seen[way]

    def ordered(self, key: Key, way: str = "probe") -> Tensor:
        """The values of each unit in ascending order [C, N * P]."""
        if (way, key) not in self._ordered:
            self._ordered[way, key] = ascending(by_unit(self.tensors(way)[key]))
        return self._ordered[way, key]

    def pool(self, key: Key, way: str = "probe") -> Tensor:
        """At most POOL of all values of a tensor, in ascending order."""
        if (way, key) not in self._pools:
            self._pools[way, key] = ascending(pooled(self.tensors(way)[key]))
        return self._pools[way, key]

    def times(self, layer: str) -> list[int]:
        """Which time steps of a recurrent layer are the last axis of its tensors, counted from 0; else empty."""
        recurrent = any(name == layer and block.recurrent for name, block in self._watched)
        return self._places[layer].tolist() if recurrent and layer in self._places else []

    def _look(self, groups: Sequence[Tensor], way: str) -> dict[Key, Tensor]:
        parts: dict[Key, list[Tensor]] = {}
        with preserve_state(self.model) if way == "running" else batch_statistics(self.model):
            restore = keep_buffers(self.model)
            for i, images in enumerate(groups):
                set_draw(self.model, -1 - i)  # of no training step, and each group's own
                seen: dict[Key, list[Tensor]] = {}
                with record_activations(self._watched, partial(self._watch, seen)):
                    self.model(images)
                for key, values in seen.items():
                    parts.setdefault(key, []).append(torch.stack(values, 2) if len(values) > 1 else values[0])
                restore()  # batch renorm works with its running statistics in training, too
        return {key: torch.cat(values) if len(values) > 1 else values[0] for key, values in parts.items()}

    def _watch(self, seen: dict[Key, list[Tensor]], layer: str, block: Recorded) -> Callable[[str, Tensor], None]:
        return self._recurrent(layer, block, seen) if block.recurrent else self._plain(layer, seen)

    def _plain(self, layer: str, seen: dict[Key, list[Tensor]]) -> Callable[[str, Tensor], None]:
        def observe(kind: str, value: Tensor) -> None:
            if self._kinds is None or kind in self._kinds:
                value = value.flatten(2) if value.dim() > 2 else value.unsqueeze(2)  # [N, C, P]
                count = value.shape[2]
                if layer not in self._places:
                    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: self.positions]
                    self._places[layer] = drawn.sort().values.to(value.device)
                all_of_them = count <= self.positions
                seen[layer, kind] = [value if all_of_them else value.index_select(2, self._places[layer])]

        return observe

    def _recurrent(self, layer: str, block: Recorded, seen: dict[Key, list[Tensor]]) -> Callable[[str, Tensor], None]:
        if layer not in self._places:
            last = block.steps - 1
            chosen = np.unique(np.linspace(0, last, min(self.positions, block.steps)).round().astype(int))
            self._places[layer] = torch.from_numpy(chosen)
        places, counts = set(self._places[layer].tolist()), dict.fromkeys(("linear", "normalized", "activation"), 0)

        def observe(kind: str, value: Tensor) -> None:
            t = counts[kind]
            counts[kind] += 1
            if t in places and (self._kinds is None or kind in self._kinds):
                seen.setdefault((layer, kind), []).append(value if len(places) > 1 else value.unsqueeze(2))

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
