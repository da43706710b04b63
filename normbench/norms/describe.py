"""What a network is made of: its blocks, what each normalises over, and which changes of its input that hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm

from normbench.norms.block import Block, Recorded, blocks, record_activations
from normbench.norms.layer import PerStep
from normbench.norms.state import AXES, axes_of
from normbench.norms.switchable import SwitchableNorm

WORDS = {"Linear": "linear", "Conv2d": "convolution", "Addition": "sum with the shortcut"}


@dataclass(frozen=True)
class Layer:
    """One block of a network, in words."""

    name: str
    linear: str
    shape: str
    parameters: int
    norm: str
    over: str


def describe(model: nn.Module, shape: tuple[int, int, int], batch_size: int) -> list[Layer]:
    """The blocks of `model`, for images of `shape` in batches of `batch_size`; it is run on noise, in training mode."""
    shapes: dict[Any, tuple[int, ...]] = {}  # of a block's `linear`, by its name, and of what a norm gets

    def watch(name: str, block: Recorded) -> Any:
        return lambda tensor, value: shapes.setdefault(name, tuple(value.shape))  # the first is `linear`

    def before(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        shapes.setdefault(norm, tuple(inputs[0].shape))

    hooks = [norm.register_forward_pre_hook(before) for _, block in blocks(model) for norm in block.norms.values()]
    with torch.no_grad(), record_activations(blocks(model), watch):
        model.train()(torch.randn(batch_size, *shape))
    for hook in hooks:
        hook.remove()
    layers = []
    for name, block in blocks(model):
        norms = [*block.norms.values()]
        kinds = ", ".join(sorted({type(getattr(norm, "norm", norm)).__name__ for norm in norms}))
        over = axes(norms[0], shapes[norms[0]]) if norms else "-"
        count = sum(p.numel() for p in block.parameters())
        out = " x ".join(map(str, shapes[name][1:]))
        layers.append(Layer(name, _weights(block), out, count, kinds + _where(block) if norms else "-", over))
    return layers


def axes(norm: nn.Module, size: tuple[int, ...]) -> str:
    """Over which axes `norm` works in training, on inputs of `size`: "examples, height, width: 1,024 values"."""
    norm = norm.norm if isinstance(norm, PerStep) else norm
    if isinstance(norm, SwitchableNorm):
        parts = norm.shares(space=len(size) > 2)
        return "a mixture of " + ", ".join(f"{part} ({_of_axes(norm, norm.parts[part], size)})" for part in parts)
    over = axes_of(norm)
    return "unknown: the norm declares no `over`" if over is None else _of_axes(norm, over, size)


def _of_axes(norm: nn.Module, over: tuple[str, ...], size: tuple[int, ...]) -> str:
    sizes = dict(zip(AXES, size, strict=False))  # without height and width in fully connected layers
    groups, virtual = getattr(norm, "num_groups", 1), getattr(norm, "virtual", size[0])
    sizes |= {"examples": min(size[0], virtual), "features": size[1] // groups}
    found = [axis for axis in sizes if axis in over and sizes[axis] > 1]
    if not found:
        return "no others: each value by itself"
    part = f" ({sizes['features']} of {size[1]} features at a time)" if "features" in found and groups > 1 else ""
    return f"{', '.join(found)}: {prod(sizes[axis] for axis in found):,} values{part}"


def invariances(linear: nn.Module, norm: nn.Module | None) -> frozenset[str]:
    """The changes of weights and data that norm(linear(x)) does not notice, up to eps, by what both declare.

        matrix scaled   all weights by one factor        data scaled      all inputs by one factor
        matrix shifted  the same added to all rows       data shifted     the same added to all examples
        vector scaled   one row of the weights           one case scaled  one example

    "Weights" are those that are drawn at random: v where they are re-parametrised (`invariant_to` of norms and
    re-parametrisations). A norm that takes one mean over features and positions does not notice a shift of the matrix
    only where there are no positions: convolutions shift each position differently. A bias in front of the norm is not
    scaled with the weights or the data.

    Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, table 1 (three of these columns and three more).
    """
    found: set[str] = set()
    if parametrize.is_parametrized(linear, "weight"):
        how = linear.parametrizations["weight"][0]  # type: ignore[index]
        of_torchs = ("matrix scaled", "vector scaled") if isinstance(how, _WeightNorm) else ()
        found |= {*getattr(how, "invariant_to", of_torchs)}
    norm = norm.norm if isinstance(norm, PerStep) else norm
    of_norm = set(getattr(norm, "invariant_to", ()))
    if isinstance(linear, nn.Conv2d) and norm is not None and {"features", "height"} <= set(axes_of(norm) or ()):
        of_norm -= {"matrix shifted"}
    if getattr(linear, "bias", None) is not None and "data shifted" not in of_norm:
        of_norm = {change for change in of_norm if "scaled" not in change}
    return frozenset(found | of_norm)


def _weights(block: Recorded) -> str:
    """The linear layer of a block, or the parts of a recurrent cell: "LSTMCell (input: linear 28 -> 400; ...)"."""
    if isinstance(block, Block):
        return _linear(block.linear)
    parts = [f"{name}: {_linear(part)}" for name, part in block.named_children()
             if hasattr(part, "weight") and name not in block.norms]  # fmt: skip
    kind = WORDS.get(type(block).__name__, type(block).__name__)
    return f"{kind} ({'; '.join(parts)})" if parts else kind


def _linear(linear: Any) -> str:
    kind, weight = type(linear).__name__.removeprefix("Parametrized"), linear.weight
    size = ", " + " x ".join(map(str, weight.shape[2:])) if weight.dim() > 2 else ""
    text = f"{WORDS.get(kind, kind)} {weight.shape[1]} -> {weight.shape[0]}{size}"
    if parametrize.is_parametrized(linear, "weight"):
        text += f", weight by {type(linear.parametrizations['weight'][0]).__name__.strip('_')}"
    return text if getattr(linear, "bias", None) is None else f"{text}, bias"


def _where(block: Recorded) -> str:
    """Where its norms stand, if it is not between linear layer and activation."""
    if not isinstance(block, Block):
        return f" ({', '.join(name.removesuffix('_norm') for name in block.norms)})"
    return " after the activation" if block.placement == "after" and block.activation is not None else ""


def facts(model: nn.Module, config: Mapping[str, Any]) -> str:
    """The network as a whole, in a line."""
    count = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers())
    return f"{count:,} parameters, {buffers:,} numbers in buffers, at batch size {config['batch_size']}"
