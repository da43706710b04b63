"""One unit of one layer, and what was recorded there while a mini-batch went through the network."""

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

from normbench.errors import UserError
from normbench.norms import Block, PerStep, Recorded, axes_of, blocks, keep_buffers, record_activations

SHOWN = 8  # rows of a table, at most


@dataclass(frozen=True)
class Subject:
    """A trained network on the CPU, and the images that it is explained with: the first of the training split.

    Args:
        trained: how it was trained, in words.
        images: the mini-batch. [N, C, H, W]
    """

    model: nn.Module
    scheme: str
    title: str
    trained: str
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Values:
    """What one pass recorded of a layer, at one time step of a recurrent one.

    Args:
        into: input of the layer.
        x, y: input and output of its norm; without one, both are `linear`. [N, C] or [N, C, H, W]
        tensors: linear, normalized, activation.
    """

    into: Tensor
    x: Tensor
    y: Tensor
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """`unit` of `layer`, at time step `t` (from 0) if it is recurrent, with these images.

    The value that is followed is that of image 1, at the position in the middle of the feature map where there is one.
    `members` are the values that share its mean and variance: those along the axes that the norm works over.
    """

    model: nn.Module
    layer: str
    block: Recorded
    unit: int
    t: int | None
    images: Tensor
    labels: Tensor

    @property
    def norm(self) -> Any:
        """The norm of the layer, or None; of a recurrent cell, that on W_x x."""
        return norm_of(self.block)

    @property
    def inner(self) -> Any:
        """The norm that has gamma and eps."""
        return self.norm.norm if isinstance(self.norm, PerStep) else self.norm

    @property
    def after(self) -> bool:
        """Does the norm follow the activation?"""
        return getattr(self.block, "placement", "before") == "after" and self.norm is not None

    @property
    def recurrent(self) -> bool:
        return self.block.recurrent

    @cached_property
    def values(self) -> Values:
        return record(self.model, self.block, self.images, self.t)

    @cached_property
    def over(self) -> tuple[str, ...] | None:
        """The axes of the norm's statistics; () for one that works value by value, None for one that doesn't say."""
        return axes_of(self.inner) if self.norm is not None else ()

    @cached_property
    def members(self) -> tuple[slice, ...]:
        """The part of x that shares statistics with the value that is followed, as an index."""
        over, size = self.over or (), self.values.x.shape
        axes = ("examples", "features", "height", "width")[: len(size)]
        centre = (0, self.unit, *(length // 2 for length in size[2:]))
        found = [slice(None) if axis in over else slice(i, i + 1) for axis, i in zip(axes, centre, strict=True)]
        if "examples" in over and (virtual := getattr(self.inner, "virtual", None)):
            found[0] = slice(0, virtual)
        if "features" in over and (groups := getattr(self.inner, "num_groups", None)):
            each = size[1] // groups
            found[1] = slice(self.unit // each * each, (self.unit // each + 1) * each)
        return tuple(found)

    @cached_property
    def shown(self) -> list[tuple[int, ...]]:
        """Indices of the members that tables show: units of image 1, or a few positions in the middle of each image."""
        size, over = self.values.x.shape, self.over or ()
        middle = tuple(length // 2 for length in size[2:])
        if "features" in over:
            channels = range(size[1])[self.members[1]]
            start = max(channels.start, min(self.unit, channels.stop - SHOWN))
            return [(0, unit, *middle) for unit in range(start, min(channels.stop, start + SHOWN))]
        images = range(size[0])[self.members[0]] if over else range(size[0])
        images = images[:SHOWN]
        if not middle:
            return [(image, self.unit) for image in images]
        row, column = middle
        each = max(1, SHOWN // len(images)) if over else 1
        first = max(0, min(column - (each - 1) // 2, size[3] - each))
        columns = range(first, min(size[3], first + each)) if each > 1 else [column]
        return [(image, self.unit, row, at) for image in images for at in columns]

    @property
    def label(self) -> str:
        """The heading of the column that names the values shown."""
        if "features" in (self.over or ()):
            return "unit"
        return "image" if self.values.x.dim() == 2 else "image and position"

    def name(self, index: tuple[int, ...]) -> str:
        """Which value this is: unit "7", image "2", or "2, row 14, column 15"."""
        if "features" in (self.over or ()):
            return str(index[1])
        position = "".join(f", {axis} {i + 1}" for axis, i in zip(("row", "column"), index[2:], strict=False))
        return f"{index[0] + 1}{position}"

    def column(self, tensor: Tensor) -> list[float]:
        """The values of `tensor`, shaped as x, that tables show."""
        return [tensor.detach()[index].double().item() for index in self.shown]

    def rows(self, *columns: list[float]) -> list[list[Any]]:
        """A row per shown value: which it is, and its number in each column."""
        return [[self.name(index), *(column[i] for column in columns)] for i, index in enumerate(self.shown)]

    def parameter(self, name: str, otherwise: float) -> Tensor:
        """gamma ("weight") or beta ("bias") of each unit, or what stands for one that is not learned. [C]"""
        tensor = getattr(self.inner, name, None)
        return self.values.x.new_full((self.values.x.shape[1],), otherwise) if tensor is None else tensor.detach()

    def apply(self, x: Tensor, plain: bool = False) -> Tensor:
        """The norm itself, on another input; `plain`: with gamma = 1 and beta = 0. Its averages stay as they are."""
        restore = keep_buffers(self.norm)
        usual = {name: torch.ones_like(p) if name.endswith("weight") else torch.zeros_like(p)
                 for name, p in self.norm.named_parameters() if name.endswith(("weight", "bias"))}  # fmt: skip
        try:
            result: Tensor = functional_call(self.norm, usual if plain else {}, (x, *self.when))
        finally:
            restore()
        return result

    @property
    def when(self) -> tuple[int, ...]:
        """What a norm is called with besides its input."""
        return () if self.t is None else (self.t,)


def norm_of(block: Recorded) -> Any:
    return getattr(block, "norm" if isinstance(block, Block) else "input_norm", None)


def find_place(subject: Subject, layer: str | None, unit: int) -> Place:
    """`unit` of `layer`, or of the first layer that has a norm. Raises UserError where there is none such."""
    found = {name: block for name, block in blocks(subject.model) if isinstance(block, Block) or block.recurrent}
    if layer is None:
        layer = next((name for name, block in found.items() if norm_of(block) is not None), next(iter(found)))
    if layer not in found:
        raise UserError(f"there is no layer {layer}. Layers of this network: {', '.join(found)}.")
    block = found[layer]
    t = block.steps // 2 if block.recurrent else None
    place = Place(subject.model, layer, block, unit, t, subject.images, subject.labels)
    units = place.values.x.shape[1]
    if not 0 <= unit < units:
        raise UserError(f"there is no unit {unit} in layer {layer}: it has {units}, from 0 to {units - 1}.")
    return place


def record(model: nn.Module, block: Recorded, images: Tensor, t: int | None) -> Values:
    """Pass `images` through `model`, in the mode it is in, and record what happens in `block`. Averages stay."""
    tensors: dict[str, list[Tensor]] = defaultdict(list)
    inputs: list[Tensor] = []
    calls: list[tuple[Tensor, Tensor]] = []
    norm, restore = norm_of(block), keep_buffers(model)
    hooks = [block.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))]
    if norm is not None:
        hooks.append(norm.register_forward_hook(lambda module, args, y: calls.append((args[0].detach(), y.detach()))))
    try:
        with record_activations([("", block)], lambda name, block: partial(_append, tensors)):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
        restore()
    at = t or 0
    found = {kind: values[at] for kind, values in tensors.items()}
    into = inputs[0] if t is None else inputs[0][t]
    x, y = calls[at] if calls else (found["linear"], found["linear"])
    return Values(into, x, y, found)


def _append(tensors: dict[str, list[Tensor]], kind: str, value: Tensor) -> None:
    tensors[kind].append(value.detach().clone())


@contextmanager
def _added(norm: nn.Module, amount: Tensor) -> Iterator[None]:
    """Inside, `amount` [C] is added to what `norm` gets: a bias in front of it."""

    def add(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] + amount.view(-1, *[1] * (args[0].dim() - 2)), *args[1:])

    hook = norm.register_forward_pre_hook(add)
    try:
        yield
    finally:
        hook.remove()


def bias_gradients(place: Place) -> tuple[Tensor, Tensor | None]:
    """The gradients of the loss: with respect to a bias in front of the norm [C], and to the beta behind it."""
    bias = place.images.new_zeros(place.values.x.shape[1]).requires_grad_()
    beta: Tensor | None = getattr(place.block if place.recurrent else place.inner, "bias", None)
    restore = keep_buffers(place.model)
    try:
        with torch.enable_grad(), _added(place.norm, bias):
            loss = F.cross_entropy(place.model(place.images), place.labels)
            wanted = [bias] if beta is None else [bias, beta]
            found = torch.autograd.grad(loss, wanted, allow_unused=True)
    finally:
        restore()
    return found[0], found[1] if len(found) > 1 else None
