"""One unit of one layer, and what was recorded there while a mini-batch went through the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from normbench.errors import UserError
from normbench.norms import Block, PerStep, Recorded, axes_of, blocks, keep_buffers, record_activations

SHOWN = 8  # rows of a table, at most
AXES = {"examples": "N", "features": "C", "height": "H", "width": "W"}


@dataclass(frozen=True)
class Step:
    """One step of a calculation: one heading, one formula, one table. Text, worksheet and JSON are made of them.

    Args:
        key: its name for programs.
        title: its heading.
        formula: in plain text; "" for none.
        words: what a student should see in the table. No number that the table asks for.
        columns, rows: the table.
        asked: the columns that are calculated in this step: a worksheet leaves them blank,
        given: but for these rows, which can't be calculated from what is shown.
    """

    key: str
    title: str
    formula: str
    words: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | int | float]]
    asked: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


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
    def values(self) -> dict[str, Tensor]:
        return record(self.model, self.block, self.images, self.t)

    @property
    def x(self) -> Tensor:
        """What the norm gets, or o of a layer without one. [N, C] or [N, C, H, W]"""
        return self.values["x"]

    @cached_property
    def over(self) -> tuple[str, ...] | None:
        """The axes of the norm's statistics; () for one that works value by value, None for one that doesn't say."""
        return axes_of(self.inner) if self.norm is not None else ()

    @cached_property
    def members(self) -> tuple[slice, ...]:
        """The part of x that shares statistics with the value that is followed, as an index."""
        return self.members_over(self.over or ())

    def members_over(self, over: tuple[str, ...]) -> tuple[slice, ...]:
        """The same of statistics over these axes."""
        size = self.x.shape
        centre = (0, self.unit, *(length // 2 for length in size[2:]))
        found = [slice(None) if axis in over else slice(i, i + 1) for axis, i in zip(AXES, centre, strict=False)]
        if "examples" in over and (virtual := getattr(self.inner, "virtual", None)):
            found[0] = slice(0, virtual)
        if "features" in over and (groups := getattr(self.inner, "num_groups", None)):
            each = size[1] // groups
            found[1] = slice(self.unit // each * each, (self.unit // each + 1) * each)
        return tuple(found)

    @cached_property
    def shown(self) -> list[tuple[int, ...]]:
        """Indices of the members that tables show: units of image 1, or a few positions in the middle of each image."""
        size, over = self.x.shape, self.over or ()
        middle = tuple(length // 2 for length in size[2:])
        if "features" in over:
            channels = range(size[1])[self.members[1]]
            start = max(channels.start, min(self.unit, channels.stop - SHOWN))
            return [(0, unit, *middle) for unit in range(start, min(channels.stop, start + SHOWN))]
        images = range(size[0])[self.members[0] if over else slice(None)][:SHOWN]
        if not middle:
            return [(image, self.unit) for image in images]
        row, column = middle
        each = max(1, SHOWN // len(images)) if over else 1
        first = max(0, min(column - (each - 1) // 2, size[3] - each)) if each > 1 else column
        return [(image, self.unit, row, at) for image in images for at in range(first, min(size[3], first + each))]

    @property
    def label(self) -> str:
        """The heading of the column that names the values shown."""
        if "features" in (self.over or ()):
            return "unit"
        return "image" if self.x.dim() == 2 else "image and position"

    def column(self, tensor: Tensor) -> list[float]:
        """The values of `tensor`, shaped as x, that tables show."""
        return [tensor.detach()[index].double().item() for index in self.shown]

    def rows(self, *columns: list[float]) -> list[list[Any]]:
        """A row per shown value: unit "7", image "2", or "2, row 14, column 15", and its number in each column."""
        rows = []
        for index, *numbers in zip(self.shown, *columns, strict=True):
            position = "".join(f", {axis} {i + 1}" for axis, i in zip(("row", "column"), index[2:], strict=False))
            rows.append([str(index[1]) if self.label == "unit" else f"{index[0] + 1}{position}", *numbers])
        return rows

    def parameter(self, name: str, otherwise: float) -> Tensor:
        """gamma ("weight") or beta ("bias") of each unit, or what stands for one that is not learned. [C]"""
        tensor = getattr(self.inner, name, None)
        return self.x.new_full((self.x.shape[1],), otherwise) if tensor is None else tensor.detach()

    def apply(self, x: Tensor, plain: bool = False) -> Tensor:
        """The norm itself, on another input; `plain`: with gamma = 1 and beta = 0. Its averages stay as they are."""
        usual = {name: torch.ones_like(p) if name.endswith("weight") else torch.zeros_like(p)
                 for name, p in self.norm.named_parameters() if name.endswith(("weight", "bias"))}  # fmt: skip
        with ExitStack() as stack:
            stack.callback(keep_buffers(self.norm))
            return functional_call(self.norm, usual if plain else {}, (x, *self.when))

    @property
    def when(self) -> tuple[int, ...]:
        """What a norm is called with besides its input."""
        return () if self.t is None else (self.t,)

    def bias_gradients(self) -> tuple[Tensor, Tensor | None]:
        """The gradients of the loss: with respect to a bias in front of the norm [C], and to the beta behind it."""
        bias = self.images.new_zeros(self.x.shape[1]).requires_grad_()
        beta: Tensor | None = getattr(self.block if self.recurrent else self.inner, "bias", None)

        def add(norm: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0] + bias.view(-1, *[1] * (args[0].dim() - 2)), *args[1:])

        with ExitStack() as stack, torch.enable_grad():
            stack.callback(keep_buffers(self.model))
            stack.enter_context(self.norm.register_forward_pre_hook(add))
            loss = F.cross_entropy(self.model(self.images), self.labels)
            found = torch.autograd.grad(loss, [bias] if beta is None else [bias, beta], allow_unused=True)
        return found[0], found[1] if len(found) > 1 else None


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
    units = place.x.shape[1]
    if not 0 <= unit < units:
        raise UserError(f"there is no unit {unit} in layer {layer}: it has {units}, from 0 to {units - 1}.")
    return place


def record(model: nn.Module, block: Recorded, images: Tensor, t: int | None) -> dict[str, Tensor]:
    """Pass `images` through `model`, in the mode it is in, and record what happens in `block`. Averages stay.

    Returns: `into`, the input of the layer; `x` and `y`, input and output of its norm (without one, both are `linear`);
        and the tensors that it shows: linear, normalized, activation. Of a recurrent one, those of time step `t`.
    """
    seen: dict[str, list[Tensor]] = defaultdict(list)

    def keep(name: str, value: Tensor) -> None:
        seen[name].append(value.detach().clone())

    def keep_both(norm: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        keep("x", args[0])
        keep("y", y)

    with ExitStack() as stack:
        stack.callback(keep_buffers(model))
        stack.enter_context(block.register_forward_pre_hook(lambda module, args: keep("into", args[0])))
        if (norm := norm_of(block)) is not None:
            stack.enter_context(norm.register_forward_hook(keep_both))
        stack.enter_context(record_activations([("", block)], lambda name, block: keep))
        model(images)
    [into] = seen.pop("into")
    found = {name: values[t or 0] for name, values in seen.items()}
    return {"x": found["linear"], "y": found["linear"], "into": into if t is None else into[t], **found}
