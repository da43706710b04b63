"""A plain convolutional network."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from normbench.models.options import activation as activation_called
from normbench.models.options import require_sizes
from normbench.norms import NormScheme


class CNN(nn.Sequential):
    """3x3 convolution blocks `conv1`, `conv2`, ..., followed by 2x2 max pooling, and a linear `output`.

    Args:
        channels: of each convolution.
        pooled: the convolutions (from 1) that pooling follows, None for all; it halves the image's sides, rounding
            down, and is left out where one is 1.
        dropout: rate after each convolution block, 0 for none.
        scheme, shape, classes, activation, normalize_output: as in MLP.

    Shape: [N, C, H, W] -> logits [N, classes].
    """

    def __init__(
        self,
        scheme: NormScheme,
        shape: tuple[int, int, int],
        classes: int,
        *,
        channels: Sequence[int],
        pooled: Collection[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        normalize_output: bool = False,
    ) -> None:
        super().__init__()
        require_sizes("channels", channels)
        c, height, width = shape
        for i, features in enumerate(channels, start=1):
            conv = nn.Conv2d(c, features, kernel_size=3, padding=1)
            self.add_module(f"conv{i}", scheme.block(conv, activation_called(activation), dropout))
            c = features
            if (pooled is None or i in pooled) and min(height, width) >= 2:
                self.add_module(f"pool{i}", nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        self.add_module("flatten", nn.Flatten())  # [N, C, H, W] -> [N, C*H*W]
        self.add_module("output", scheme.block(nn.Linear(c * height * width, classes), normalize=normalize_output))
