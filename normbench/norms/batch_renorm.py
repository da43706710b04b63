"""Batch renormalization: batch normalization that trains with what evaluation will use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normbench.norms.batch import RunningStatistics


class BatchRenorm(RunningStatistics):
    """y = gamma ((x - mean_B) / sigma_B r + d) + beta,
    r = clip(sigma_B / sigma, 1 / r_max, r_max), d = clip((mean_B - mean) / sigma, -d_max, d_max).

    mean_B, sigma_B are the batch's (sigma = sqrt(var + eps)); mean, sigma the moving averages before it, as evaluation
    uses them: without clipping, y would be the same in both. No gradient flows through r and d. (The paper averages
    sigma_B; here, as in batch norm, it is the unbiased variance that is averaged.)

    The limits start at r_max = 1, d_max = 0, which is batch norm, stay there for `warmup_steps`, and grow linearly to
    d_max at 5 and r_max at 8 times `warmup_steps`: the paper's schedule, whose `warmup_steps` is 5000.

    Args:
        r_max: 1 or more.
        d_max: 0 or more.
        warmup_steps: 0 for both limits at once.
        options: as RunningStatistics.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: there is nothing to standardise.
    Source: Ioffe 2017, arXiv:1702.03275, section 3 and algorithm 1; schedule: section 4.
    """

    called = "Batch renormalization"

    def __init__(
        self, features: int, *, r_max: float = 3.0, d_max: float = 5.0, warmup_steps: int = 5000, **options: Any
    ) -> None:
        super().__init__(features, **options)
        self.r_max, self.d_max, self.warmup_steps = r_max, d_max, warmup_steps

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_hat, mean, var = self.standardised(x, None, None)
        values = x.numel() // x.shape[1]
        r, d = self.correction(mean, var * ((values - 1) / values))
        if self.affine:
            r, d = self.weight * r, self.weight * d + self.bias
        view = (-1, *[1] * (x.dim() - 2))
        return x_hat * r.view(view) + d.view(view), mean, var

    def correction(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """r and d [C] of a batch with this mean and biased variance."""
        r_max, d_max = self.limits()
        assert self.running_var is not None
        sigma = (self.running_var + self.eps).sqrt()
        r = ((var + self.eps).sqrt() / sigma).clamp(1 / r_max, r_max)
        return r, ((mean - self.running_mean) / sigma).clamp(-d_max, d_max)

    def limits(self) -> tuple[Tensor, Tensor]:
        """r_max and d_max at the next step, on the device."""
        step = self.num_batches_tracked.to(self.running_mean.dtype)
        grown = step / self.warmup_steps - 1 if self.warmup_steps else torch.full_like(step, torch.inf)
        return 1 + (self.r_max - 1) * (grown / 7).clamp(0, 1), self.d_max * (grown / 4).clamp(0, 1)
