"""Scaled weight standardization: each unit's weights have mean 0 and a fixed length, whatever is learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normbench.errors import Unsupported


class WeightStandardization(nn.Module):
    """w = g gain (v - mean(v)) / (sigma(v) sqrt(fan_in)), per output unit or channel, over its fan_in weights.

    For inputs of independent values with mean 0 and variance 1, units then have variance gain^2.

    Args:
        gain: what the activation takes away: sqrt(2 / (1 - 1/pi)) = 1.71286 for ReLU, 1 for the identity.
        eps: smallest fan_in sigma^2; above it, the scale of v plays no part at all.
        affine: learn g, one per unit, which starts at 1.

    Shape: (g [C', 1, ...], v [C', ...]) -> w, shaped as v.
    Source: Brock, De & Smith 2021, arXiv:2101.08692, section 4 (g: their code).
    """

    def __init__(self, gain: float, eps: float) -> None:
        super().__init__()
        self.gain, self.eps = gain, eps

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        var, mean = torch.var_mean(v, tuple(range(1, v.dim())), correction=0, keepdim=True)
        return g * self.gain * (v - mean) * (var * v[0].numel()).clamp(min=self.eps).rsqrt()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A weight that is set becomes v, and g is 1: w then has the directions of `weight`, and its own length."""
        return torch.ones_like(weight[(slice(None), *[slice(1)] * (weight.dim() - 1))]), weight


def weight_standardization(
    linear: nn.Module, *, gain: float = 1.71286, eps: float = 1e-4, affine: bool = True
) -> nn.Module:
    """Re-parametrise `linear.weight`; g is `parametrizations.weight.original0`, and v `original1`, as in weight norm.

    Raises: Unsupported with one input to a unit: its deviation from the mean is 0.
    """
    weight: Tensor = linear.weight  # type: ignore[assignment]
    if weight[0].numel() == 1:
        raise Unsupported(
            "Weight standardization needs two inputs to a unit: got 1. Use a wider layer, or norm=weight."
        )
    parametrize.register_parametrization(linear, "weight", WeightStandardization(gain, eps))
    linear.parametrizations.weight.original0.requires_grad_(affine)  # type: ignore[union-attr]
    return linear
