"""Layer normalization of a convolution at each pixel: the features of one position standardised."""

from __future__ import annotations

from torch import Tensor, nn

from normbench.errors import Unsupported


class LayerNorm2d(nn.LayerNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and (biased) var over C at each pixel of each example.

    `norm=layer` takes C, H, W together; this is the variant of ConvNeXt. In fully connected layers both are the same.

    Args:
        features: C, the size of axis 1.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0), per channel.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported with one channel: its deviation from the mean is 0.
    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, section 3; at each pixel: Liu et al. 2022, arXiv:2201.03545,
        section 2.6.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            raise Unsupported(
                "LayerNorm needs two features to normalise over: got 1. Use a wider layer, or norm=batch."
            )
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)  # [N, C, H, W] -> [N, H, W, C] -> [N, C, H, W]
