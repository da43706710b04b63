"""Folding a trained network: is it the same on the test set, and how much faster is it?"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from normbench.data import Split
from normbench.norms import fold

LARGEST = {"float32": 1e-4, "float64": 1e-10}  # logit difference, where no logit exceeds 1; more in proportion
BATCH_SIZES = (1, 16, 256)  # of the latencies
ROUNDS, MILLISECONDS_A_TURN = 15, 4.0
IMAGES_AT_ONCE = 500
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Changed:
    """An image that is classified otherwise than before; `margin`: of the old class over the new one, before."""

    image: int
    before: int
    after: int
    margin: float


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images.

    Args:
        difference: the largest between two logits.
        limit: that it may have: rounding grows with the logits.
        changed: the images whose class is another.
    """

    precision: str
    images: int
    difference: float
    limit: float
    changed: list[Changed]

    @property
    def equal(self) -> bool:
        """Is all difference rounding? A class may change where two logits were nearer to each other than that."""
        return self.difference <= self.limit and all(c.margin <= self.difference for c in self.changed)


def compare_in(precision: str, model: nn.Module, images: Split) -> Comparison:
    """`model` and what it is folded to, both in "float32" or "float64"."""
    before = deepcopy(model).to(getattr(torch, precision)).eval()
    return compare(before, fold(before)[0], images, precision)


@torch.inference_mode()
def compare(before: nn.Module, after: nn.Module, images: Split, precision: str = "float32") -> Comparison:
    """Two networks of one precision on all `images`."""
    logits = []
    for places in torch.arange(len(images), device=images.index.device).split(IMAGES_AT_ONCE):
        x = images.batch(places)[0].to(getattr(torch, precision))
        logits.append(torch.stack([before(x), after(x)]))  # [2, B, classes]
    old, new = torch.cat(logits, 1)
    difference, largest = (old - new).abs().max().item(), old.abs().max().item()
    was, now = old.argmax(1), new.argmax(1)
    changed = [
        Changed(i, int(was[i]), int(now[i]), (old[i, was[i]] - old[i, now[i]]).item())
        for i in (was != now).nonzero().flatten().tolist()
    ]
    return Comparison(precision, len(old), difference, LARGEST[precision] * max(1.0, largest), changed)


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch: medians over turns that alternate between the two networks."""

    batch_size: int
    before: float
    after: float


@torch.inference_mode()
def latencies(before: nn.Module, after: nn.Module, images: Split, sizes: Sequence[int] = BATCH_SIZES) -> list[Latency]:
    """How long a batch of each size takes, without and with the norms, on the run's device and threads.

    In turns, so that a machine that slows down slows both.
    """
    found = []
    for size in sizes:
        x = images.batch(torch.arange(size, device=images.index.device) % len(images))[0]
        found.append(Latency(size, *milliseconds_in_turns([before, after], x)))
    return found


def milliseconds_in_turns(
    functions: Sequence[Callable[[Tensor], object]], x: Tensor, rounds: int = ROUNDS, clock: Clock = time.perf_counter
) -> list[float]:
    """How long each takes for x: medians over turns that alternate between them.

    Args:
        clock: `time.process_time` on a busy machine: what one thread computes, without what it waits for.
    """
    *_, last = ([_milliseconds(function, x, 3, clock) for function in functions] for _ in range(2))  # the first warm up
    times = max(1, round(MILLISECONDS_A_TURN / max(last)))
    turns = [[_milliseconds(function, x, times, clock) for function in functions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def _milliseconds(function: Callable[[Tensor], object], x: Tensor, times: int, clock: Clock) -> float:
    """Of one call, on average. (torch.utils.benchmark.Timer counts the same; its import looks for a compiler.)"""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    wait()
    start = clock()
    for _ in range(times):
        function(x)
    wait()
    return 1000 * (clock() - start) / times


def exported(model: nn.Module, image: Tensor) -> bytes:
    """`model` as a torch.export program for batches of any size, which runs without normbench.

    Args:
        image: one like those that it will get [C, H, W].
    """
    example = torch.stack([image, image])
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    data = io.BytesIO()
    torch.export.save(program, data)
    return data.getvalue()
