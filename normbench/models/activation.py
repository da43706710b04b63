"""Activations by name."""

from __future__ import annotations

from collections.abc import Callable

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


def activation(name: str) -> Callable[[], nn.Module]:
    """The activation called `name`. Raises ValueError, naming the others."""
    if name not in ACTIVATIONS:
        raise ValueError(f"model.activation is one of {', '.join(ACTIVATIONS)}: got {name}.")
    return ACTIVATIONS[name]
