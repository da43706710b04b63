"""Mean-only batch normalization: each unit's mean over the mini-batch is subtracted, its variance left alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normbench.norms.statistics import RunningStatistics, require_two_values


class MeanOnlyBatchNorm(RunningStatistics):
    """y = x - mean + beta, mean over the batch (and space), per feature.

    Weight normalisation fixes the scale of a unit but not its mean; this fixes the mean. In training, `mean` is that of
    the mini-batch; in evaluation, its moving average. The gradient through it is centred: its mean over the batch is 0.

    Args:
        features: C, the size of axis 1.
        momentum: weight of the new batch in the exponential average.
        affine: learn beta (`bias`, starts at 0).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: the result would be beta, whatever the input.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 4.
    """

    centres_units = True

    def __init__(self, features: int, *, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__((features,), momentum, variance=False)
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            require_two_values(x, "Mean-only batch norm")
            mean = x.mean((0, *range(2, x.dim())))
            self.update(mean.detach())
        else:
            mean = self.running_mean
        shift = mean if self.bias is None else mean - self.bias
        return x - (shift if x.dim() == 2 else shift.view(-1, *[1] * (x.dim() - 2)))

    def extra_repr(self) -> str:
        return f"{len(self.running_mean)}, momentum={self.momentum}, affine={self.bias is not None}"


class RecurrentMeanOnlyBatchNorm(RunningStatistics):
    """y = x - mean_t inside a recurrent cell, with the statistics of each time step t.

    It follows each normalised weight matrix, as in a feed-forward layer; the cell adds the one bias. No paper gives a
    recipe for recurrent cells: this is the direct reading of Salimans & Kingma's section 4 with the per-step statistics
    of Cooijmans et al. 2016.

    Args: as RecurrentBatchNorm. `place="state"` is refused by the scheme: no weight matrix precedes the cell's state.
    Shape: ([N, features], t) -> [N, features].
    Raises: Unsupported in training with one value per feature.
    """

    def __init__(self, features: int, steps: int, place: str, *, momentum: float = 0.1, per_step: bool = True) -> None:
        shape, updates = (steps if per_step else 1, features), 1 if per_step else steps
        super().__init__(shape, momentum, variance=False, updates=updates)

    def forward(self, x: Tensor, t: int) -> Tensor:
        t = min(t, len(self.running_mean) - 1)
        if not self.training:
            return x - self.running_mean[t]
        require_two_values(x, "Mean-only batch norm")
        mean = x.mean(0)
        self.update(mean.detach(), t=t)
        return x - mean


def recurrent_mean_only(features: int, steps: int, place: str, **options: object) -> nn.Module | None:
    """`recurrent_norm` of weight normalisation with mean-only batch norm: after W_x, W_h, not on the cell's state."""
    if place == "state":
        return None
    return RecurrentMeanOnlyBatchNorm(features, steps, place, **options)  # type: ignore[arg-type]
