"""Running statistics: what norms over the batch remember of the batches they have seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normbench.errors import Unsupported

ONE_VALUE = "{norm} needs two values per feature to train: got a batch of {n}. Use batch_size=2 or more, or norm=layer."


class RunningStatistics(nn.Module):
    """Two averages of the batch statistics: exponential (`running_...`) and plain (`average_...`).

    The plain ones are kept as sums, which cost one addition each per step; they are divided when they are asked for.

    Args:
        shape: [C], or [T, C] for statistics per time step; the count of batches then is per step, too.
        momentum: weight of a new batch in the exponential averages, above 0 and at most 1.
        updates: how many there are in one training step; each then weighs so much less that the averages look back
            equally far.
        variance: keep the variance, too (biased batch variances times m/(m-1), as torch.nn.BatchNorm does).
    """

    uses_batch = True
    running_mean: Tensor
    running_var: Tensor
    sum_mean: Tensor
    sum_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, shape: tuple[int, ...], momentum: float, variance: bool = True, updates: int = 1) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"norm.momentum must be above 0 and at most 1: got {momentum}.")
        self.momentum = 1 - (1 - momentum) ** (1 / updates) if updates > 1 else momentum
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("sum_mean", torch.zeros(shape))
        if variance:
            self.register_buffer("running_var", torch.ones(shape))
            self.register_buffer("sum_var", torch.zeros(shape))
        self.register_buffer("num_batches_tracked", torch.zeros(shape[:-1], dtype=torch.long))

    @property
    def average_mean(self) -> Tensor:
        """The mean of the batch means so far; 0 before the first batch."""
        return self.sum_mean / self.num_batches_tracked.clamp(min=1).unsqueeze(-1)

    @property
    def average_var(self) -> Tensor:
        """The mean of the unbiased batch variances so far; 1 before the first batch."""
        count = self.num_batches_tracked.unsqueeze(-1)
        return torch.where(count > 0, self.sum_var / count, 1.0)

    def update(self, mean: Tensor, var: Tensor | None = None, t: int | None = None) -> None:
        """Feed one batch's mean and unbiased variance [C], without gradients (for time step `t`, if given)."""
        if t is None:
            self.num_batches_tracked.add_(1)
            self.sum_mean.add_(mean)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            if var is not None:
                self.sum_var.add_(var)
                self.running_var.lerp_(var, self.momentum)
        else:
            self.num_batches_tracked[t].add_(1)
            self.sum_mean[t].add_(mean)
            self.running_mean[t].lerp_(mean.to(self.running_mean.dtype), self.momentum)
            if var is not None:
                self.sum_var[t].add_(var)
                self.running_var[t].lerp_(var, self.momentum)


def require_two_values(x: Tensor, norm: str) -> None:
    """Raise `Unsupported` if each feature of `x` [N, C, ...] has a single value: its deviation from the mean is 0."""
    if x.numel() == x.shape[1]:
        raise Unsupported(ONE_VALUE.format(norm=norm, n=x.shape[0]))
