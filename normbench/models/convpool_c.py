"""ConvPool-CNN-C as the weight normalization paper modified it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from normbench.models.options import activation as activation_called
from normbench.models.options import scaled
from normbench.norms import NormScheme

# Channels, side of the kernel, padding. Pooling and dropout follow the third and the sixth.
LAYERS = [(96, 3, 1)] * 3 + [(192, 3, 1)] * 3 + [(192, 3, 0), (192, 1, 0), (192, 1, 0)]
POOLED = (3, 6)
VALID = 3  # side of the kernel that has no padding


class ConvPoolC(nn.Sequential):
    """noise; 3 x [3x3, 96]; M; 3 x [3x3, 192]; M; 3x3 without padding, 192; 1x1, 192; 1x1, 192; mean; `output`.

    M is 2x2 max pooling and dropout; the mean is over all positions. Small images are pooled only where 3x3 positions
    remain, which the convolution without padding needs.

    Args:
        width: factor of all numbers of channels.
        noise: standard deviation of the Gaussian noise on the image in training.
        dropout: rate after each pooling, 0 for none.
        normalize_output: normalise the output layer, too, as the paper's code does.
        scheme, shape, classes, activation: as in MLP.

    Shape: [N, C, H, W] -> logits [N, classes].
    Raises: ValueError for images of less than 3x3.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, table 1 and the code it refers to; ConvPool-CNN-C of
        Springenberg et al. 2014, arXiv:1412.6806.
    """

    def __init__(
        self,
        scheme: NormScheme,
        shape: tuple[int, int, int],
        classes: int,
        *,
        width: float = 1.0,
        activation: str = "leaky_relu",
        noise: float = 0.15,
        dropout: float = 0.5,
        normalize_output: bool = True,
    ) -> None:
        super().__init__()
        c, *sides = shape
        if min(sides) < VALID:
            raise ValueError(f"convpool_c needs images of {VALID}x{VALID} or more: got {sides[0]}x{sides[1]}.")
        self.add_module("noise", GaussianNoise(noise))
        channels = scaled([features for features, _, _ in LAYERS], width)
        for i, (features, (_, kernel, padding)) in enumerate(zip(channels, LAYERS, strict=True), start=1):
            conv = nn.Conv2d(c, features, kernel, padding=padding)
            self.add_module(f"conv{i}", scheme.block(conv, activation_called(activation)))
            c = features
            if i in POOLED:
                if min(sides) // 2 >= VALID:
                    self.add_module(f"pool{i}", nn.MaxPool2d(2))
                    sides = [side // 2 for side in sides]
                if dropout > 0:
                    self.add_module(f"dropout{i}", scheme.dropout(dropout))
        self.add_module("mean", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())  # [N, C, 1, 1] -> [N, C]
        self.add_module("output", scheme.block(nn.Linear(c, classes), normalize=normalize_output))


class GaussianNoise(nn.Module):
    """y = x + std e, e ~ N(0, 1), in training; y = x in evaluation."""

    def __init__(self, std: float) -> None:
        super().__init__()
        if std < 0:
            raise ValueError(f"model.noise must be 0 or more: got {std}.")
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x) if self.training and self.std > 0 else x

    def extra_repr(self) -> str:
        return f"std={self.std}"
