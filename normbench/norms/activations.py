"""Dynamic tanh: a squashing function in the place of a norm, without statistics of any kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DynamicTanh(nn.Module):
    """y = gamma tanh(alpha x) + beta, value by value; alpha is one number for the layer, gamma and beta per feature.

    Nothing is averaged, so the bias of the layer before is not useless here: it moves x within the tanh.

    Args:
        features: C, the size of axis 1.
        alpha: where alpha starts; it is learned, whatever `affine`.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Source: Zhu et al. 2025, arXiv:2503.10622, section 4.
    """

    over = ()
    keeps_bias = True

    def __init__(self, features: int, *, alpha: float = 0.5, affine: bool = True) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), float(alpha)))
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        view = (-1, *[1] * (x.dim() - 2))
        y = (self.alpha * x).tanh()
        y = y if self.weight is None else y * self.weight.view(view)
        return y if self.bias is None else y + self.bias.view(view)
