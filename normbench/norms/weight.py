"""Weight normalization: the length of each weight vector is a parameter of its own."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrizations


def weight_norm(linear: nn.Module) -> nn.Module:
    """w = g v / |v|, one g per output unit or channel, |v| over all other axes; started so that w is unchanged.

    torch keeps g as `parametrizations.weight.original0` and v as `parametrizations.weight.original1`.

    Shape: g [C', 1, ...], v as the weight.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 2.
    """
    return parametrizations.weight_norm(linear, name="weight", dim=0)
