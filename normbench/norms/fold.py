"""Folding: a trained network without its norms, which in evaluation are one multiply-add per unit."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize

from normbench.norms.block import Block, Recorded, blocks
from normbench.norms.statistics import RunningStatistics

AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


class Unfoldable(ValueError):
    """This network can't be folded. The message says why."""


class MultiplyAdd(NamedTuple):
    """y = a x + b, per unit. Shape: a, b [C]."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Merge:
    """What was merged in a block, and into which layer."""

    block: str
    what: str
    into: str


def fold(model: nn.Module) -> tuple[nn.Module, list[Merge]]:
    """A copy of `model`, in evaluation mode, without norms and re-parametrised weights, and what became of each.

    A norm with running statistics is y = a x + b with a = gamma / sqrt(var + eps), b = beta - a mean. Before the
    activation it goes into the layer that it follows: W' = a W, b' = a bias + b. After the activation it goes into the
    next layer: W' = W a, b' = bias + W b. A re-parametrised weight is computed once. All is calculated in float64 and
    rounded once. The result has the parameters of the same network with `norm=none`, by the same names.

    Raises: Unfoldable.
    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    """
    folded = deepcopy(model).eval()
    merges: list[Merge] = []
    with torch.no_grad():
        for name, block in blocks(folded):
            if not isinstance(block, Block):
                _require_plain(name, block)
                continue
            if parametrize.is_parametrized(block.linear):
                merges.append(Merge(name, _parametrization(block.linear), name))
                _compute(block.linear)
        for name, block in blocks(folded):
            norm = getattr(block, "norm", None)
            if not isinstance(block, Block) or norm is None:
                continue
            adjacent = block.placement == "before" or block.activation is None
            target = name if adjacent else _merge_into_next(folded, name, multiply_add(norm, block.linear, name))
            if adjacent:
                _merge_before(block.linear, multiply_add(norm, block.linear, name))
            merges.append(Merge(name, type(norm).__name__, target))
            block.norm = None
    return folded, merges


def multiply_add(norm: Any, linear: nn.Module, name: str) -> MultiplyAdd:
    """What `norm` does in evaluation, in float64. Raises Unfoldable if that isn't the same for every image."""
    known = isinstance(norm, RunningStatistics | _BatchNorm)
    if not known or norm.running_mean is None:
        raise Unfoldable(f"{type(norm).__name__} in {name} can't be folded: {_why_not(norm, linear)}")
    mean = norm.running_mean.double()
    gamma, beta = getattr(norm, "weight", None), getattr(norm, "bias", None)
    a = torch.ones_like(mean) if gamma is None else gamma.double()
    if getattr(norm, "running_var", None) is not None:  # mean-only batch norm has none
        a = a * (norm.running_var.double() + norm.eps).rsqrt()
    b = -a * mean
    return MultiplyAdd(a, b if beta is None else b + beta.double())


def _why_not(norm: nn.Module, linear: Any) -> str:
    """Found by differentiating: on which other values does a value of its output depend?"""
    size = (2, len(linear.weight), *[4] * (linear.weight.dim() - 2))
    x = torch.linspace(-1, 2, prod(size)).to(linear.weight).view(size).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(norm(x).flatten()[0], x)
    if gradient[1].any():
        return "it works with the other examples of a batch in evaluation, too."
    if gradient.flatten()[1:].any():
        return (
            "it divides by statistics of the example itself, which are others for every image, "
            "so no constant factor and shift can replace it."
        )
    return "it keeps no running mean, and only norms that do are a constant factor and shift in evaluation."


def _require_plain(name: str, block: Recorded) -> None:
    """Recurrent cells: statistics are per time step and stand between two products, one of them with the state."""
    norms = [child for child in block.named_children() if child[0].endswith("_norm")]
    if norms or any(parametrize.is_parametrized(module) for module in block.modules()):
        raise Unfoldable(
            f"{name} can't be folded: in a recurrent cell each time step has statistics of its own, so that one "
            "weight matrix can't hold them. Fold an MLP or a CNN."
            if norms
            else f"{name} can't be folded: re-parametrised weights of recurrent cells are left as they are."
        )


def _parametrization(linear: Any) -> str:
    kinds = [type(kind[0]).__name__.strip("_") for kind in linear.parametrizations.values()]
    return f"weight computed once ({', '.join(kinds)})"


def _compute(linear: Any) -> None:
    """Make re-parametrised weights plain ones, in place.

    torch's remove_parametrizations changes the class of `linear`, which the network that it was copied from shares.
    """
    exact = deepcopy(linear).double()
    dtypes = {name: getattr(linear, name).dtype for name in linear.parametrizations}
    linear.__class__ = parametrize.type_before_parametrizations(linear)
    del linear.parametrizations
    for name, dtype in dtypes.items():
        linear.register_parameter(name, nn.Parameter(getattr(exact, name).detach().to(dtype)))


def _merge_before(linear: Any, norm: MultiplyAdd) -> None:
    """Put a norm that follows `linear` at once into it."""
    bias = 0 if linear.bias is None else linear.bias.double()
    _set(linear, _along(norm.a, linear, 0) * linear.weight.double(), norm.a * bias + norm.b)


def _merge_into_next(model: nn.Module, name: str, norm: MultiplyAdd) -> str:
    """Put the norm at the end of block `name` into the layer that comes next, whose name is returned."""
    into, target = _next_block(model, name, norm)
    linear = target.linear
    if isinstance(linear, nn.Linear):  # behind nn.Flatten a channel has several inputs, one for each position
        norm = MultiplyAdd(*(part.repeat_interleave(linear.in_features // len(part)) for part in norm))
    elif not isinstance(linear, nn.Conv2d) or linear.groups != 1:
        raise Unfoldable(f"the norm behind {name} can't be folded into {into}: it is neither linear nor a convolution.")
    elif linear.padding not in ((0, 0), "valid"):
        raise Unfoldable(
            f"the norm behind the activation of {name} can't be folded into {into}: that convolution pads its input "
            "with zeros, which come after the norm, so at the borders the norm's shift is missing from the sum. "
            "Use norm.placement=before, or convolutions without padding."
        )
    weight = linear.weight.double()
    added = (weight * _along(norm.b, linear, 1)).flatten(1).sum(1)
    _set(linear, weight * _along(norm.a, linear, 1), added if linear.bias is None else linear.bias.double() + added)
    return into


def _next_block(model: nn.Module, name: str, norm: MultiplyAdd) -> tuple[str, Block]:
    """The block that takes the output of block `name`, where nothing on the way there would change a x + b."""
    parent, _, own = name.rpartition(".")
    for other, module in _following(model.get_submodule(parent), own):
        if isinstance(module, Block):
            return f"{parent}.{other}".lstrip("."), module
        if isinstance(module, nn.MaxPool2d) and (norm.a < 0).any():
            raise Unfoldable(
                f"the norm behind the activation of {name} can't be folded: {other} takes the largest of its outputs, "
                "and where gamma is negative that is the smallest of its inputs. Use norm.placement=before."
            )
        harmless = isinstance(module, (nn.MaxPool2d, nn.Flatten, nn.Identity, _DropoutNd, *AVERAGES))
        if not harmless or (isinstance(module, nn.AvgPool2d) and module.padding):
            break
    raise Unfoldable(f"the norm behind the activation of {name} can't be folded: no linear layer follows it directly.")


def _following(parent: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """What runs after child `name`, which is known where modules run one after the other alone."""
    if isinstance(parent, nn.Sequential):
        children = list(parent.named_children())
        yield from children[[child for child, _ in children].index(name) + 1 :]


def _along(values: Tensor, linear: Any, axis: int) -> Tensor:
    """[C] so that it is multiplied with axis 0 (outputs) or 1 (inputs) of a weight."""
    shape = [1] * linear.weight.dim()
    shape[axis] = -1
    return values.view(shape)


def _set(linear: Any, weight: Tensor, bias: Tensor) -> None:
    dtype = linear.weight.dtype
    linear.weight = nn.Parameter(weight.to(dtype))
    linear.bias = nn.Parameter(bias.to(dtype))
