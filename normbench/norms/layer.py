"""Layer normalization: each example standardised over its own features."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms.recurrent import PerStep


class LayerNorm(nn.Module):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over all features of one example.

    For convolutions the statistics are over C, H, W, with one gain and bias per channel: torch's GroupNorm(1, C).
    The batch plays no part: training and evaluation are the same, and so is any batch size.

    Args:
        features: C, the size of axis 1.
        eps: added to the variance.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported with one value per example: its deviation from the mean is 0.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.features, self.eps = features, eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == 1:
            raise Unsupported(
                "LayerNorm needs two features to normalise over: got 1. Use a wider layer, or norm=batch."
            )
        if x.dim() == 2:  # the same numbers as group_norm with one group, from a faster kernel
            return F.layer_norm(x, (self.features,), self.weight, self.bias, self.eps)
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}, affine={self.weight is not None}"


class RecurrentLayerNorm(PerStep):
    """Layer normalization inside a recurrent cell: gain (and bias) shared over time, statistics per example and step.

    On W_x x and W_h h all gates are normalised together.

    Shape: ([N, features], t) -> [N, features].
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.1 and supplement, equations 20-22.
    """

    def __init__(self, features: int, steps: int, place: str, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, steps, place, norm=partial(LayerNorm, eps=eps, affine=affine))
