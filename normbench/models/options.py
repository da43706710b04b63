"""What models share: activations by name, and a width factor. `config/schema.py` says which values options may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


def scaled(channels: Iterable[int], width: float) -> list[int]:
    """`channels` times `width`, rounded, at least 1."""
    return [max(1, round(width * c)) for c in channels]
