"""A small residual network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from normbench.models.options import ACTIVATIONS, scaled, three_wide
from normbench.norms import NormScheme, Recorded, show_both_sides

CHANNELS = (16, 32, 64)  # of the three stages
PER_BLOCK = 2 * len(CHANNELS)  # layers that one more block in each stage adds


class ResNet(nn.Sequential):
    """A 3x3 convolution block `conv`; three stages of n residual blocks of 16, 32, 64 channels; mean; `output`.

    The first blocks of the second and third stage halve the sides. depth = 6n + 2 counts convolutions and the output.
    For signals, which are images of one row, convolutions are 1x3.

    Args:
        depth: 8, 14, 20, ...
        width: factor of all numbers of channels.
        dropout: rate between the two convolutions of each residual block (Zagoruyko & Komodakis 2016,
            arXiv:1605.07146), 0 for none.
        scheme, shape, classes, activation, normalize_output: as in MLP.

    Shape: [N, C, H, W] -> logits [N, classes].
    Source: He et al. 2015, arXiv:1512.03385, section 4.2.
    """

    def __init__(
        self,
        scheme: NormScheme,
        shape: tuple[int, int, int],
        classes: int,
        *,
        depth: int = 8,
        width: float = 1.0,
        activation: str = "relu",
        dropout: float = 0.0,
        normalize_output: bool = False,
    ) -> None:
        super().__init__()
        if depth < PER_BLOCK + 2 or (depth - 2) % PER_BLOCK:
            raise ValueError(f"model.depth of a resnet is 6n + 2 (8, 14, 20, ...): got {depth}.")
        channels, act, kernel = scaled(CHANNELS, width), ACTIVATIONS[activation], three_wide(shape)
        c = channels[0]
        self.add_module("conv", scheme.block(nn.Conv2d(shape[0], c, **kernel), act))
        for stage, features in enumerate(channels, start=1):
            for i in range(1, (depth - 2) // PER_BLOCK + 1):
                stride = 2 if stage > 1 and i == 1 else 1
                self.add_module(f"stage{stage}block{i}", Residual(scheme, c, features, stride, kernel, act, dropout))
                c = features
        self.add_module("mean", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())  # [N, C, 1, 1] -> [N, C]
        self.add_module("output", scheme.block(nn.Linear(c, classes), normalize=normalize_output))


class Residual(nn.Module):
    """h = activation(norm(conv2(block1(x))) + shortcut(x)), block1 = convolution, norm, activation.

    The shortcut has no parameters ("option A"): every second position where the sides are halved, and zeros for the
    channels that x lacks. With `placement=after` the first norm follows its activation; the second convolution has no
    activation of its own, and its norm stays before the addition.

    Shape: [N, C, H, W] -> [N, features, H', W'], sides divided by `stride`, rounded up.
    """

    def __init__(
        self,
        scheme: NormScheme,
        channels: int,
        features: int,
        stride: int,
        kernel: Mapping[str, Any],
        activation: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        self.stride, self.lacking = stride, features - channels
        first = nn.Conv2d(channels, features, stride=stride, **kernel)
        self.conv1 = scheme.block(first, activation, dropout)
        self.conv2 = scheme.block(nn.Conv2d(features, features, **kernel))
        self.sum = Addition((scheme.activation or activation)())

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.lacking:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.lacking))
        return self.sum(self.conv2(self.conv1(x)), shortcut)


class Addition(Recorded):
    """activation(branch + shortcut): where a branch without an activation of its own gets one.

    It shows `linear` = branch + shortcut, and `activation`, the input of the next block.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        show_both_sides(activation)
        self.activation = activation

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        x = branch + shortcut
        self.show("linear", x)
        x = self.activation(x)
        self.show("activation", x)
        return x
