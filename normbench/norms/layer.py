"""Norms of one example, whatever its batch: layer, RMS, group and instance normalization, dynamic tanh and erf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.errors import Unsupported

OF_CHANNELS = ("matrix scaled", "vector scaled", "data scaled", "data shifted", "one case scaled")
ONE_FEATURE = "{norm} needs two features to normalise over: got 1. Use a wider layer, or norm=batch."


class ExampleNorm(nn.Module):
    """A norm whose statistics are those of one example: training and evaluation are the same, at any batch size.

    Args:
        features: C, the size of axis 1.
        eps: added to the variance.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0), per feature.
    """

    over: tuple[str, ...] = ("features", "height", "width")
    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.features, self.eps = features, eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def finished(self, y: Tensor) -> Tensor:
        """gamma y + beta, of y [N, C, ...]."""
        view = (-1, *[1] * (y.dim() - 2))
        y = y if self.weight is None else y * self.weight.view(view)
        return y if self.bias is None else y + self.bias.view(view)


class LayerNorm(ExampleNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over all features of one example.

    For convolutions the statistics are over C, H, W, with one gain and bias per channel: torch's GroupNorm(1, C).

    Args: as ExampleNorm.
    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported with one value per example: its deviation from the mean is 0.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3.
    """

    invariant_to = ("matrix scaled", "matrix shifted", "data scaled", "one case scaled")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == 1:
            raise Unsupported(ONE_FEATURE.format(norm="LayerNorm"))
        if x.dim() == 2:  # the same numbers as group_norm with one group, from a faster kernel
            return F.layer_norm(x, (self.features,), self.weight, self.bias, self.eps)
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


class LayerNorm2d(LayerNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over C at each pixel of each example.

    `norm=layer` takes C, H, W together; this is the variant of ConvNeXt. In fully connected layers both are the same.

    Args: as ExampleNorm.
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
        return F.layer_norm(pixels, (self.features,), self.weight, self.bias, self.eps).movedim(-1, 1)


class RMSNorm(ExampleNorm):
    """y = gamma x / sqrt(mean(x^2) + eps) + beta, the mean over all features of one example.

    Layer norm without its centring. For convolutions the mean is over C, H, W, with one gain and bias per channel.
    As in the paper the unit's bias comes after the norm (torch.nn.RMSNorm has none).

    Args: as ExampleNorm; eps is added to the mean square.
    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported with one value per example: nothing but its sign would be left.
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, sections 3 and 4.
    """

    invariant_to = ("matrix scaled", "data scaled", "one case scaled")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == 1:
            raise Unsupported(ONE_FEATURE.format(norm="RMSNorm"))
        return self.finished(F.rms_norm(x, x.shape[1:], None, self.eps))


class GroupNorm(ExampleNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over a group of channels (and space) of
    one example.

    One group is layer norm, as many groups as channels is instance norm.

    Args:
        groups: how many groups; must divide C.
        channels_per_group: instead of `groups`, how many channels are in each; must divide C.
        options: as ExampleNorm.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises:
        ValueError: the groups do not divide the channels.
        Unsupported: a group has one value: its deviation from the mean is 0.
    Source: Wu & He 2018, arXiv:1803.08494, section 3.
    """

    def __init__(self, features: int, *, groups: int, channels_per_group: int | None = None, **options: Any) -> None:
        super().__init__(features, **options)
        option, size = ("groups", groups) if channels_per_group is None else ("channels_per_group", channels_per_group)
        if features % size:
            possible = ", ".join(str(n) for n in range(1, features + 1) if features % n == 0)
            raise ValueError(
                f"norm.{option} must divide the features of each normalised layer: got {size} for {features} features. "
                f"Use one of {possible}, or another width; model.normalize_output=false leaves the classes alone."
            )
        self.num_groups = groups if channels_per_group is None else features // size

    @property
    def invariant_to(self) -> tuple[str, ...]:
        by_channel = self.num_groups == self.features
        return OF_CHANNELS if by_channel else ("matrix scaled", "matrix shifted", "data scaled", "one case scaled")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() == self.num_groups:
            raise Unsupported(
                f"GroupNorm needs two values in a group to normalise over: got 1 ({self.num_groups} groups, "
                f"{self.features} features). Use fewer norm.groups, more norm.channels_per_group, or norm=batch."
            )
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm(ExampleNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over H, W of one channel of one example.

    Args: as ExampleNorm.
    Shape: [N, C, H, W], unchanged.
    Raises: Unsupported with one position, as in fully connected layers and recurrent cells: x - mean is 0.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, section 2.
    """

    over = ("height", "width")
    invariant_to = OF_CHANNELS

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            raise Unsupported(
                "InstanceNorm needs two positions to normalise over: got one value per unit, as everywhere but in "
                "convolutions over more than one pixel. Use norm=layer or norm=group, or a convolutional model."
            )
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class DynamicTanh(ExampleNorm):
    """y = gamma tanh(alpha x) + beta, value by value; alpha is one number for the layer, gamma and beta per feature.

    There are no statistics of any kind. Nothing is averaged, so the bias of the layer before is not useless here: it
    moves x within the tanh.

    Args:
        alpha: where alpha starts; it is learned, whatever `affine`.
        features, affine: as ExampleNorm.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Source: Zhu et al. 2025, arXiv:2503.10622, section 4.
    """

    over = ()
    keeps_bias = True

    def __init__(self, features: int, *, alpha: float = 0.5, affine: bool = True) -> None:
        nn.Module.__init__(self)
        self.alpha = nn.Parameter(torch.full((1,), float(alpha)))  # the first parameter, as checkpoints have it
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return self.finished((self.alpha * x).tanh())


class DynamicErf(DynamicTanh):
    """y = gamma erf(alpha x + s) + beta, value by value; alpha and s are one number for the layer each, gamma and beta
    per feature.

    erf is the cumulative distribution function of N(0, 1/2), stretched to -1 .. 1.

    Args:
        alpha: where alpha starts; it is learned, as is s (`shift`), which starts at 0, whatever `affine`.
        features, affine: as ExampleNorm.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Source: Chen et al. 2025, arXiv:2512.10938 ("Derf"); where alpha and s start, from the authors' code.
    """

    def __init__(self, features: int, **options: Any) -> None:
        super().__init__(features, **options)
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.finished((self.alpha * x + self.shift).erf())


class PerStep(nn.Module):
    """y_t = norm(x_t): the same norm at each time step of a recurrent cell, gain (and bias) shared over time.

    For norms that remember nothing from batch to batch. On W_x x and W_h h, all gates normalised together, there is no
    bias, because the cell adds one to their sum; on the cell's state, before its tanh, there is.

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
