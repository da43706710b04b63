"""Layer and RMS normalization: each example by its own features; and norms without memory inside recurrent cells."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.errors import Unsupported

ONE_FEATURE = "{norm} needs two features to normalise over: got 1. Use a wider layer, or norm=batch."


class LayerNorm(nn.LayerNorm):
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

    over: tuple[str, ...] = ("features", "height", "width")
    invariant_to = ("matrix scaled", "matrix shifted", "data scaled", "one case scaled")

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps, affine)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == 1:
            raise Unsupported(ONE_FEATURE.format(norm="LayerNorm"))
        if x.dim() == 2:  # the same numbers as group_norm with one group, from a faster kernel
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


class LayerNorm2d(LayerNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over C at each pixel of each example.

    `norm=layer` takes C, H, W together; this is the variant of ConvNeXt. In fully connected layers both are the same.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported with one channel: its deviation from the mean is 0.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3; at each pixel: Liu et al. 2022, arXiv:2201.03545,
        section 2.6.
    """

    over = ("features",)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            raise Unsupported(ONE_FEATURE.format(norm="LayerNorm"))
        pixels = x.movedim(1, -1)  # [N, H, W, C]
        return F.layer_norm(pixels, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class RMSNorm(nn.RMSNorm):
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

    over = ("features", "height", "width")
    invariant_to = ("matrix scaled", "data scaled", "one case scaled")

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps, affine)
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == 1:
            raise Unsupported(ONE_FEATURE.format(norm="RMSNorm"))
        view = (-1, *[1] * (x.dim() - 2))
        y = F.rms_norm(x, x.shape[1:], None, self.eps)
        y = y if self.weight is None else y * self.weight.view(view)
        return y if self.bias is None else y + self.bias.view(view)


class PerStep(nn.Module):
    """y_t = norm(x_t): the same norm at each time step of a recurrent cell, gain (and bias) shared over time.

    For norms that remember nothing from batch to batch (layer, group, RMS ...). On W_x x and W_h h there is no bias,
    because the cell adds one to their sum; on the cell's state, before its tanh, there is. On W_x x and W_h h all gates
    are normalised together.

    Args:
        steps: plays no part: nothing is stored per step.
        place: "input", "hidden" or "state".
        norm: number of features -> module, as in a block.

    Shape: ([N, features], t) -> [N, features].
    Source: of layer norm, Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.1 and supplement, equations 20-22.
    """

    def __init__(self, features: int, steps: int, place: str, *, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = norm(features)
        if place != "state":
            self.norm.bias = None  # type: ignore[assignment]

    def forward(self, x: Tensor, t: int) -> Tensor:
        return self.norm(x)
