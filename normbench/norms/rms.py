"""RMS normalization: each example divided by the root mean square of its features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.errors import Unsupported


class RMSNorm(nn.Module):
    """y = gamma x / sqrt(mean(x^2) + eps) + beta, the mean over all features of one example.

    Layer norm without its centring. For convolutions the mean is over C, H, W, with one gain and bias per channel.
    As in the paper the unit's bias comes after the norm (torch.nn.RMSNorm has none).

    Args:
        features: C, the size of axis 1.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported with one value per example: nothing but its sign would be left.
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, sections 3 and 4.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.features, self.eps = features, eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == 1:
            raise Unsupported("RMSNorm needs two features to normalise over: got 1. Use a wider layer, or norm=batch.")
        view = (-1, *[1] * (x.dim() - 2))
        y = F.rms_norm(x, x.shape[1:], None, self.eps)
        y = y if self.weight is None else y * self.weight.view(view)
        return y if self.bias is None else y + self.bias.view(view)

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}, affine={self.weight is not None}"
