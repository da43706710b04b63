"""What models share: activations, a kernel, a width factor. `config/schema.py` says which values options may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
}


def three_wide(shape: tuple[int, int, int]) -> dict[str, Any]:
    """A 3x3 kernel with the padding that keeps the sides of images of this shape (C, H, W); 1x3 for those of one row,
    which are signals: two rows of the kernel would meet nothing but padding.
    """
    rows = 1 if shape[1] == 1 else 3
    return {"kernel_size": (rows, 3), "padding": (rows // 2, 1)}


def scaled(channels: Iterable[int], width: float) -> list[int]:
    """`channels` times `width`, rounded, at least 1."""
    return [max(1, round(width * c)) for c in channels]
