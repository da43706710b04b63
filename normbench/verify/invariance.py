"""Six changes that a normalised layer may or may not notice: the columns of Ba et al. 2016 and three of the same kind.

Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, table 1; which scheme is unmoved by which is in `definitions.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

COLUMNS = ("matrix scaled", "matrix shifted", "vector scaled", "data scaled", "data shifted", "one case scaled")


def weight_of(block: Any) -> nn.Parameter:
    """What is drawn at random: the weight itself, or v where it is re-parametrised."""
    linear = block.linear
    return linear.parametrizations.weight.original1 if parametrize.is_parametrized(linear) else linear.weight


def transformed(column: str, w: Tensor, x: Tensor, by: float = 3.0) -> tuple[Tensor, Tensor]:
    """Weights [C', C, ...] and data [N, C, ...] after one of the changes."""
    w, x = w.clone(), x.clone()
    if column == "matrix scaled":
        w *= by
    elif column == "matrix shifted":  # W + 1 shift^T: every unit's weight vector by the same
        w += torch.linspace(-1, by, w[0].numel()).to(w).view_as(w[0])
    elif column == "vector scaled":
        w[2] *= by
    elif column == "data scaled":
        x *= by
    elif column == "data shifted":
        x += torch.linspace(-1, by, x.shape[1]).to(x).view(1, -1, *[1] * (x.dim() - 2))
    elif column == "one case scaled":
        x[3] *= by
    return w, x
