"""One seed, independent streams: weights, order of the data, noise (`noise.py`), and what users' own modules draw."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


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
