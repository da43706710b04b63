"""VGG-11 for small images."""

from __future__ import annotations

from typing import Any

from normbench.models.cnn import CNN
from normbench.models.options import scaled
from normbench.norms import NormScheme

CHANNELS = (64, 128, 256, 256, 512, 512, 512, 512)
POOLED = (1, 2, 4, 6, 8)  # the convolutions that 2x2 max pooling follows


def vgg11(scheme: NormScheme, shape: tuple[int, int, int], classes: int, *, width: float = 1.0, **options: Any) -> CNN:
    """3x3 convolutions 64, M, 128, M, 256, 256, M, 512, 512, M, 512, 512, M (M: 2x2 max pooling) and a linear `output`.

    One linear layer stands for the three of the paper, whose images are 224x224; 32x32 end as 1x1. On 28x28 the side
    is 1 before the last pooling, which is left out.

    Args:
        width: factor of all numbers of channels.
        scheme, shape, classes, options: as in CNN.

    Source: Simonyan & Zisserman 2014, arXiv:1409.1556, table 1, column A.
    """
    return CNN(scheme, shape, classes, channels=scaled(CHANNELS, width), pooled=POOLED, **options)
