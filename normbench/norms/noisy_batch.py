"""Noisy batch normalization: batch normalization whose output is shaken anew at every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from normbench.noise import Noisy, normal, uniform
from normbench.norms.batch import BatchNorm


class NoisyBatchNorm(Noisy, BatchNorm):
    """y = k BatchNorm(x) + m in training, with m ~ U(mu - spread, mu + spread), k ~ N(s, spread^2) for each unit of
    each example, around mu ~ U(-noise_mean, noise_mean), s ~ U(1, noise_scale), drawn anew for each unit at every step.

    Each unit's distribution so moves from step to step, more than without any norm; that it trains about as well as
    batch norm speaks against the shift of distributions as the reason for batch norm's success. In convolutions a unit
    is a channel: k and m are the same at all positions. In evaluation there is no noise; an instrument that works with
    the batch's statistics sees it, because the next layer does.

    Args:
        noise_mean: largest mean of a unit's noise.
        noise_scale: largest factor of a unit, 1 or more.
        noise_spread: how far single examples are from their unit's.
        options: as RunningStatistics.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature.
    Source: Santurkar et al. 2018, arXiv:1805.11604, section 2.1 and figure 2.
    """

    noisy = True  # False while inference is tried with the statistics of a batch (`use_batch_statistics`)

    def __init__(
        self,
        features: int,
        *,
        noise_mean: float = 0.5,
        noise_scale: float = 1.25,
        noise_spread: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(features, **options)
        self.noise_mean, self.noise_scale, self.noise_spread = noise_mean, noise_scale, noise_spread

    def forward(self, x: Tensor, t: int | None = None) -> Tensor:
        y = super().forward(x, t)
        if not (self.training and self.noisy):
            return y
        n, c = y.shape[:2]
        key = self.key(y.device)
        u, z = uniform(key, (n + 2, c), y.dtype), normal(key._replace(call=1), (n, c), y.dtype)
        mu = self.noise_mean * (2 * u[0] - 1)  # [C]
        s = 1 + (self.noise_scale - 1) * u[1]
        m = mu + self.noise_spread * (2 * u[2:] - 1)  # [N, C]
        k = s + self.noise_spread * z
        view = (n, c, *[1] * (y.dim() - 2))
        return k.view(view) * y + m.view(view)
