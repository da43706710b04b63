"""Plain convolutional networks: with pooling where one asks for it (VGG-11 is one), and ConvPool-CNN-C."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

from torch import Tensor, nn

from normbench.models.options import ACTIVATIONS, scaled, three_wide
from normbench.noise import Noisy, normal
from normbench.norms import NormScheme


class CNN(nn.Sequential):
    """3x3 convolution blocks `conv1`, `conv2`, ..., followed by 2x2 max pooling, and a linear `output`.

    `model=vgg11` is this: 64, M, 128, M, 256, 256, M, 512, 512, M, 512, 512, M (M: pooling). One linear layer stands
    for the three of the paper, whose images are 224x224; 32x32 end as 1x1, and 28x28 before the last pooling.

    For signals, which are images of one row, convolutions are 1x3 and pooling is 1x2.

    Args:
        channels: of each convolution.
        width: factor of all numbers of channels.
        pooled: the convolutions (from 1) that pooling follows, None for all; it halves the image's sides, rounding
            down, and is left out where one is 1.
        dropout: rate after each convolution block, 0 for none.
        scheme, shape, classes, activation, normalize_output: as in MLP.

    Shape: [N, C, H, W] -> logits [N, classes].
    Source: VGG-11: Simonyan & Zisserman 2014, arXiv:1409.1556, table 1, column A.
    """

    def __init__(
        self,
        scheme: NormScheme,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: Sequence[int],
        width: float = 1.0,
        pooled: Collection[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        normalize_output: bool = False,
    ) -> None:
        super().__init__()
        c, *sides = shape
        pool = (min(sides[0], 2), 2)
        for i, features in enumerate(scaled(channels, width), start=1):
            conv = nn.Conv2d(c, features, **three_wide(shape))
            self.add_module(f"conv{i}", scheme.block(conv, ACTIVATIONS[activation], dropout))
            c = features
            if (pooled is None or i in pooled) and sides[0] >= pool[0] and sides[1] >= pool[1]:
                self.add_module(f"pool{i}", nn.MaxPool2d(pool))
                sides = [side // p for side, p in zip(sides, pool, strict=True)]
        self.add_module("flatten", nn.Flatten())  # [N, C, H, W] -> [N, C*H*W]
        self.add_module("output", scheme.block(nn.Linear(c * prod(sides), classes), normalize=normalize_output))


# ConvPool-CNN-C: channels, side of the kernel, padding. Pooling and dropout follow the third and the sixth.
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
            self.add_module(f"conv{i}", scheme.block(conv, ACTIVATIONS[activation]))
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


class GaussianNoise(Noisy):
    """y = x + std e, e ~ N(0, 1), in training; y = x in evaluation."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.std == 0:
            return x
        return x + self.std * normal(self.key(x.device), x.shape, x.dtype)
