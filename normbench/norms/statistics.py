"""Running statistics: what norms over the batch remember of the batches they have seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from normbench.norms.block import Unsupported

ONE_VALUE = "{norm} needs two values per feature to train: got a batch of {n}. Use batch_size=2 or more, or norm=layer."


def require_two_values(x: Tensor, norm: str) -> None:
    """Raise `Unsupported` if each feature of `x` [N, C, ...] has a single value: its deviation from the mean is 0."""
    if x.numel() == x.shape[1]:
        raise Unsupported(ONE_VALUE.format(norm=norm, n=x.shape[0]))


def require_momentum(momentum: float) -> None:
    """Raise ValueError unless `momentum` is the weight of a new batch in an average."""
    if not 0 < momentum <= 1:
        raise ValueError(f"norm.momentum must be above 0 and at most 1: got {momentum}.")


def register_statistics(module: nn.Module, shape: tuple[int, ...], variance: bool = True) -> None:
    """Give `module` its buffers: exponential and plain averages, and how many batches went into them.

    Args:
        shape: [C], or [T, C] for statistics per time step; the count then is per step, too.
    """
    for kind in ("running", "average"):
        module.register_buffer(f"{kind}_mean", torch.zeros(shape))
        if variance:
            module.register_buffer(f"{kind}_var", torch.ones(shape))
    module.register_buffer("num_batches_tracked", torch.zeros(shape[:-1], dtype=torch.long))


@torch.no_grad()
def update_statistics(
    module: Any, momentum: float, mean: Tensor, var: Tensor | None = None, t: int | None = None
) -> None:
    """Feed one batch's mean and unbiased variance [C] into both averages (those of time step `t`, if given)."""
    count = module.num_batches_tracked if t is None else module.num_batches_tracked[t]
    count.add_(1)
    share = count.to(mean.dtype).reciprocal_()  # a tensor, not a number: reading it would stop a GPU
    for kind, weight in (("running", momentum), ("average", share)):
        for name, value in (("mean", mean), ("var", var)):
            if value is not None:
                buffer = getattr(module, f"{kind}_{name}")
                (buffer if t is None else buffer[t]).lerp_(value.to(buffer.dtype), weight)
