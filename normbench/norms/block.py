"""A block: linear layer or convolution, norm, activation. What schemes build and instruments observe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn

TENSORS = ("linear", "normalized", "activation")  # the three tensors of a block, everywhere by these names


class Recorded(nn.Module):
    """A module that shows its three tensors to whoever looks.

    `observer(name, tensor)` is called in each forward pass with the tensors of `TENSORS`, in the order in which they
    are computed; a recurrent cell calls it once per time step. A tensor that equals another is shown once: without a
    norm, `normalized` is `linear`; without an activation, `activation` is what comes before it.
    """

    observer: Callable[[str, Tensor], None] | None = None
    recurrent = False  # a recurrent cell shows each tensor once per time step ...
    steps = 1  # ... so many times in a pass

    @property
    def norms(self) -> dict[str, nn.Module]:
        """Its norms: `norm` of a block; in a recurrent cell their names end in "_norm"."""
        return {name: module for name, module in self.named_children() if name.endswith("norm")}

    def show(self, name: str, tensor: Tensor) -> None:
        if self.observer is not None:
            self.observer(name, tensor)


class Block(Recorded):
    """activation(norm(linear(x))), or norm(activation(linear(x))) with `placement="after"`; then dropout.

    Shape: as the linear layer or convolution: [N, C] -> [N, C'] or [N, C, H, W] -> [N, C', H', W'].
    """

    def __init__(
        self,
        linear: nn.Module,
        norm: nn.Module | None = None,
        activation: nn.Module | None = None,
        dropout: nn.Module | None = None,
        placement: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__()
        show_both_sides(activation)
        self.linear, self.norm, self.activation, self.dropout = linear, norm, activation, dropout
        self.placement = placement

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        self.show("linear", x)
        if self.norm is not None and self.placement == "before":
            x = self.norm(x)
            self.show("normalized", x)
        if self.activation is not None:
            x = self.activation(x)
            self.show("activation", x)
        if self.norm is not None and self.placement == "after":
            x = self.norm(x)
            self.show("normalized", x)
        return x if self.dropout is None else self.dropout(x)


def blocks(model: nn.Module) -> Iterator[tuple[str, Recorded]]:
    """The blocks and recurrent cells of `model` with their names, in the order in which they were defined."""
    for name, module in model.named_modules():
        if isinstance(module, Recorded):
            yield name, module


@contextmanager
def record_activations(
    layers: Iterable[tuple[str, Recorded]], watch: Callable[[str, Recorded], Callable[[str, Tensor], None]]
) -> Iterator[None]:
    """Inside, each of these blocks shows its tensors to `watch(name, block)`; afterwards to whom it did before."""
    layers = list(layers)
    before = [(block, block.observer) for _, block in layers]
    try:
        for name, block in layers:
            block.observer = watch(name, block)
        yield
    finally:
        for block, observer in before:
            block.observer = observer


def show_both_sides(activation: nn.Module | None) -> None:
    """Let an activation not work in place: it would overwrite the tensor that was shown before it."""
    if getattr(activation, "inplace", False):
        activation.inplace = False  # type: ignore[union-attr]
