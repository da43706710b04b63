"""Options that models share: activations by name, sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def require_sizes(option: str, sizes: Sequence[int]) -> None:
    """Raise ValueError unless every one of `sizes`, the value of model.`option`, is 1 or more."""
    if any(size < 1 for size in sizes):
        raise ValueError(f"model.{option} must be 1 or more: got {', '.join(map(str, sizes))}.")
