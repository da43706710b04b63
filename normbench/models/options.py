"""Options that models share: activations by name, choices, sizes, a width factor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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
    require_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def require_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError unless `value`, that of model.`option`, is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"model.{option} is one of {', '.join(choices)}: got {value}.")


def require_sizes(option: str, sizes: Sequence[int]) -> None:
    """Raise ValueError unless every one of `sizes`, the value of model.`option`, is 1 or more."""
    if any(size < 1 for size in sizes):
        raise ValueError(f"model.{option} must be 1 or more: got {', '.join(map(str, sizes))}.")


def scaled(channels: Iterable[int], width: float) -> list[int]:
    """`channels` times model.width, rounded, at least 1. Raises ValueError for a width that is not above 0."""
    if not 0 < width < float("inf"):
        raise ValueError(f"model.width, a factor of the numbers of channels, must be above 0: got {width}.")
    return [max(1, round(width * c)) for c in channels]
