"""Norms without statistics, inside recurrent cells."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class PerStep(nn.Module):
    """y_t = norm(x_t): the same norm at each time step of a recurrent cell, gain (and bias) shared over time.

    For norms that remember nothing from batch to batch (layer, group, RMS ...). On W_x x and W_h h there is no bias,
    because the cell adds one to their sum; on the cell's state, before its tanh, there is.

    Args:
        steps: plays no part: nothing is stored per step.
        place: "input", "hidden" or "state".
        norm: number of features -> module, as in a block.

    Shape: ([N, features], t) -> [N, features].
    """

    def __init__(self, features: int, steps: int, place: str, *, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm = norm(features)
        if place != "state":
            self.norm.bias = None  # type: ignore[assignment]

    def forward(self, x: Tensor, t: int) -> Tensor:
        return self.norm(x)
