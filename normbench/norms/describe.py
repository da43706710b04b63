"""`normbench describe`: the network as blocks, with shapes, parameters, and what is normalised over which axes.

The axes are not written down anywhere but found out: one output value is differentiated with respect to all inputs, and
the axes along which it depends on others, or others on these, are those that the norm works over. So it is true of a
user's own norm, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normbench.norms import Block, Recorded, blocks
from normbench.norms.block import record_activations

AXES = ("examples", "features", "height", "width")


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
    shapes: dict[tuple[str, str], tuple[int, ...]] = {}
    with torch.no_grad(), record_activations(blocks(model), lambda name, block: partial(_note, shapes, name)):
        model.train()(torch.randn(batch_size, *shape))
    layers = []
    for name, block in blocks(model):
        size = shapes[name, "linear"]
        out = " x ".join(map(str, size[1:]))
        count = sum(p.numel() for p in block.parameters())
        if isinstance(block, Block):
            linear = _linear(block.linear)
            norm = "-" if block.norm is None else type(block.norm).__name__
            after = block.norm is not None and block.placement == "after" and block.activation is not None
            norm += " after the activation" if after else ""
            over = "-" if block.norm is None else axes(block.norm, size)
        else:
            linear = _weights(block)
            places = {n.removesuffix("_norm"): m for n, m in block.named_children() if n.endswith("_norm")}
            kinds = {type(m).__name__ for m in places.values()}
            norm = f"{', '.join(sorted(kinds))} ({', '.join(places)})" if places else "-"
            features = getattr(block, "together", 1) * getattr(block, "units", size[1])  # what its first norm takes
            over = axes(next(iter(places.values())), (size[0], features), 0) if places else "-"
        layers.append(Layer(name, linear, out, count, norm, over))
    return layers


def _note(shapes: dict[tuple[str, str], tuple[int, ...]], name: str, tensor: str, value: Tensor) -> None:
    shapes.setdefault((name, tensor), tuple(value.shape))


def axes(norm: nn.Module, size: tuple[int, ...], *arguments: Any) -> str:
    """Over which axes `norm`, in training mode, works on inputs of `size`: "examples, height, width (1,024 values)"."""
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    first = (0,) * len(size)
    x = torch.randn(size, dtype=torch.float32)
    x[first] = 0.1  # not the largest, for a norm that divides by that

    def output(x: Tensor) -> Tensor:
        norm.load_state_dict(state)
        torch.manual_seed(0)  # of the noise, where there is some
        return norm.train()(x, *arguments)

    with torch.random.fork_rng(devices=[]):
        y = output(x.requires_grad_())
        (gradient,) = torch.autograd.grad(y[first], x)
        together = gradient.abs() > 1e-9
        together[first] = False
        if not together.any():
            norm.load_state_dict(state)
            return "no others: each value by itself"
        # Of a maximum only the largest value is felt, but it is felt by all: what these inputs move belongs together.
        with torch.no_grad():
            together |= (output(x + together) - y).abs() > 1e-6 * y.abs()
    norm.load_state_dict(state)
    together[first] = True
    found = [AXES[a] for a in range(len(size)) if together.movedim(a, 0)[1:].any()]
    names = ", ".join(found)
    features = int(together.flatten(2).any(2).any(0).sum()) if together.dim() > 2 else int(together.any(0).sum())
    part = f" ({features} of {size[1]} features at a time)" if 1 < features < size[1] else ""
    return f"{names}: {int(together.sum()):,} values{part}"


def _linear(linear: nn.Module) -> str:
    words = {"Linear": "linear", "Conv2d": "convolution"}
    kind = type(linear).__name__.removeprefix("Parametrized")
    weight: Any = linear.weight
    size = " x ".join(map(str, weight.shape[2:]))
    name = f"{words.get(kind, kind)} {weight.shape[1]} -> {weight.shape[0]}{', ' + size if size else ''}"
    return f"{name}{_parametrised(linear)}{'' if getattr(linear, 'bias', None) is None else ', bias'}"


def _parametrised(module: nn.Module) -> str:
    if not torch.nn.utils.parametrize.is_parametrized(module, "weight"):
        return ""
    [how, *_] = module.parametrizations["weight"]  # type: ignore[index]
    return f", weight by {type(how).__name__.strip('_')}"


def _weights(cell: Recorded) -> str:
    parts = [f"{name}: {_linear(part)}" for name, part in cell.named_children() if hasattr(part, "weight")
             and not name.endswith("_norm")]  # fmt: skip
    kind = {"Addition": "sum with the shortcut"}.get(type(cell).__name__, type(cell).__name__)
    return f"{kind} ({'; '.join(parts)})" if parts else kind


def facts(model: nn.Module, config: Mapping[str, Any]) -> str:
    """The network as a whole, in a line."""
    count = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in model.buffers())
    return f"{count:,} parameters, {buffers:,} numbers in buffers, at batch size {config['batch_size']}"
