"""Instance normalization: each channel of each example standardised over its own positions."""

from __future__ import annotations

from torch import Tensor, nn

from normbench.errors import Unsupported


class InstanceNorm(nn.InstanceNorm2d):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over H, W of one channel of one example.

    The batch plays no part: training and evaluation are the same.

    Args:
        features: C, the size of axis 1.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0), per channel.

    Shape: [N, C, H, W], unchanged.
    Raises: Unsupported with one position, as in fully connected layers and recurrent cells: x - mean is 0.
    Source: Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022, section 2.
    """

    centres_units = True

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            raise Unsupported(
                "InstanceNorm needs two positions to normalise over: got one value per unit, as everywhere but in "
                "convolutions over more than one pixel. Use norm=layer or norm=group, or a convolutional model."
            )
        return super().forward(x)
