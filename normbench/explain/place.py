"""One unit of one layer, and what was seen there while a mini-batch went through the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from normbench.norms import Block, PerStep, Recorded, keep_buffers, record_activations

SHOWN = 8  # rows of a table, at most
GATES = {
    "LSTMCell": ("input", "forget", "candidate", "output"),
    "GRUCell": ("reset", "update", "candidate"),
}


@dataclass(frozen=True)
class Seen:
    """What one pass showed of a layer, at one time step of a recurrent one.

    Args:
        into: input of the layer.
        x, y: input and output of its norm; without one, both are `linear`. [N, C, ...]
        tensors: linear, normalized, activation.
    """

    into: Tensor
    x: Tensor
    y: Tensor
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where we look: `unit` of `layer`, at time step `t` (from 0) if it is recurrent, with these images."""

    model: nn.Module
    layer: str
    block: Recorded
    unit: int
    t: int | None
    images: Tensor
    labels: Tensor
    many: Tensor  # more images, for what four can't show

    @property
    def norm(self) -> nn.Module | None:
        return norm_of(self.block)

    @property
    def after(self) -> bool:
        """Does the norm follow the activation?"""
        return getattr(self.block, "placement", "before") == "after" and self.norm is not None

    @property
    def recurrent(self) -> bool:
        return self.block.recurrent

    @cached_property
    def seen(self) -> Seen:
        return look(self.model, self.block, self.images, self.t)

    def apply(self, x: Tensor, plain: bool = False) -> Tensor:
        """The norm itself, on another input; `plain`: with gamma = 1 and beta = 0. Its averages stay as they are."""
        assert self.norm is not None
        restore = keep_buffers(self.norm)
        usual = {name: torch.ones_like(p) if name.endswith("weight") else torch.zeros_like(p)
                 for name, p in self.norm.named_parameters()} if plain else {}  # fmt: skip
        try:
            return functional_call(self.norm, usual, (x, *self.when))
        finally:
            restore()

    @property
    def when(self) -> tuple[int, ...]:
        """What a norm is called with besides its input."""
        return () if self.t is None else (self.t,)

    def values(self, tensor: Tensor) -> list[float]:
        """This unit's values: of every image, and of every position."""
        return tensor.detach()[:, self.unit].double().flatten().tolist()

    @cached_property
    def shown(self) -> list[int]:
        """Which of these values tables show: all if they are few, else some of each of the first images."""
        size = self.seen.x[:, 0].shape
        if len(size) == 1:
            return list(range(min(SHOWN, size[0])))
        positions = size[1:].numel()
        middle = (size[1] // 2) * size[2:].numel() + size[2:].numel() // 2
        each = max(1, SHOWN // size[0])
        chosen = range(middle - (each - 1) // 2, middle - (each - 1) // 2 + each)
        return [i * positions + p for i in range(min(size[0], SHOWN)) for p in chosen if 0 <= p < positions]

    def name(self, index: int) -> str:
        """Which value this is: "2", or "2, row 14, column 15"."""
        size = self.seen.x[:, 0].shape
        if len(size) == 1:
            return str(index + 1)
        image, row, column = torch.unravel_index(torch.tensor(index), size)
        return f"{int(image) + 1}, row {int(row) + 1}, column {int(column) + 1}"

    def rows(self, *columns: list[float]) -> list[list[Any]]:
        """A row per shown value: which it is, and its number in each column."""
        return [[self.name(i), *(column[i] for column in columns)] for i in self.shown]

    @property
    def gate(self) -> str:
        names = GATES.get(type(self.block).__name__, ())
        return names[self.unit // units] if (units := getattr(self.block, "units", 0)) and names else ""


def norm_of(block: Recorded) -> nn.Module | None:
    """The norm of a layer; of a recurrent cell, that on W_x x."""
    return getattr(block, "norm" if isinstance(block, Block) else "input_norm", None)


def inner(norm: nn.Module) -> nn.Module:
    """The norm that has gamma and eps."""
    return norm.norm if isinstance(norm, PerStep) else norm


def parameter(norm: nn.Module | None, name: str, unit: int, otherwise: float) -> float:
    """gamma ("weight") or beta ("bias") of a unit, or what stands for one that is not learned."""
    tensor = getattr(inner(norm), name, None) if norm is not None else None
    return otherwise if tensor is None else tensor[unit].item()


def look(model: nn.Module, block: Recorded, images: Tensor, t: int | None) -> Seen:
    """Pass `images` through `model`, in the mode it is in, and see what happens in `block`. Averages stay."""
    tensors: dict[str, list[Tensor]] = defaultdict(list)
    inputs: list[Tensor] = []
    calls: list[tuple[Tensor, Tensor]] = []
    norm, restore = norm_of(block), keep_buffers(model)
    hooks = [block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))]
    if norm is not None:
        hooks.append(norm.register_forward_hook(lambda module, args, y: calls.append((args[0].detach(), y))))
    try:
        with record_activations([("", block)], lambda name, block: partial(_keep, tensors)):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
        restore()
    at = t or 0
    found = {kind: values[at] for kind, values in tensors.items()}
    into = inputs[0] if t is None else inputs[0][t]
    x, y = calls[at] if calls else (found["linear"], found["linear"])
    return Seen(into, x, y, found)


def _keep(tensors: dict[str, list[Tensor]], kind: str, value: Tensor) -> None:
    tensors[kind].append(value.detach().clone())


@contextmanager
def added(norm: nn.Module, amount: Tensor) -> Iterator[None]:
    """Inside, `amount` [C] is added to what `norm` gets: a bias in front of it."""

    def add(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] + amount.view(-1, *[1] * (args[0].dim() - 2)), *args[1:])

    hook = norm.register_forward_pre_hook(add)
    try:
        yield
    finally:
        hook.remove()


def bias_gradient(place: Place) -> tuple[Tensor, Tensor | None]:
    """The gradients of the loss: with respect to a bias in front of the norm [C], and to the beta behind it."""
    assert place.norm is not None
    bias = place.images.new_zeros(place.seen.x.shape[1]).requires_grad_()
    beta: Tensor | None = getattr(place.block if place.recurrent else place.norm, "bias", None)
    restore = keep_buffers(place.model)
    try:
        with torch.enable_grad(), added(place.norm, bias):
            loss = F.cross_entropy(place.model(place.images), place.labels)
            wanted = [bias] if beta is None else [bias, beta]
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
    finally:
        restore()
    return found[0], found[1] if len(found) > 1 else None
