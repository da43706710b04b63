"""One seed, independent streams: weights, order of the data, noise (`noise.py`), and what users' own modules draw."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_LOCK = threading.RLock()  # torch's generators and number of threads are the whole process's


def derive(seed: int, *names: object) -> int:
    """A seed for the stream called `names`: 63 bits of SHA-256, so that neighbouring seeds have nothing in common."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for the stream called `names`; drawing on the CPU gives the same numbers for every device."""
    return torch.Generator().manual_seed(derive(seed, *names))


def order(seed: int, epoch: int, examples: int) -> Tensor:
    """The order of the training examples in one epoch: a permutation [examples] that depends on nothing else."""
    return torch.randperm(examples, generator=generator(seed, "order", epoch))


def seed_everything_else(seed: int) -> None:
    """Start torch's own generators, for modules that draw from them: ours don't, see `noise.py`."""
    torch.manual_seed(derive(seed, "noise"))


@contextmanager
def own_state() -> Iterator[None]:
    """Inside, torch's generators and its number of threads are the run's; after it they are the caller's, as before.

    One thread of a process at a time.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with _LOCK, torch.random.fork_rng(devices):
        threads = torch.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
