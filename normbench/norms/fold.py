"""Folding: a trained network without its norms, which in evaluation are one multiply-add per unit."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from normbench.norms.block import Block, Recorded, blocks
from normbench.norms.state import axes_of


class Unfoldable(ValueError):
    """This network can't be folded. The message says why."""


@dataclass(frozen=True)
class Merge:
    """What was merged in a block, and into which layer."""

    block: str
    what: str
    into: str


def fold(model: nn.Module) -> tuple[nn.Module, list[Merge]]:
    """A copy of `model`, in evaluation mode, without norms and re-parametrised weights, and what became of each.

    A norm with running statistics is y = a x + b with a = gamma / sqrt(var + eps), b = beta - a mean (beta if it does
    not centre). It goes into the layer that it follows: W' = a W, b' = a bias + b. A re-parametrised weight is
    computed once. All is calculated in float64 and rounded once. The result has the parameters of the same network with
    `norm=none`, by the same names.

    Raises: Unfoldable.
    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    """
    folded = deepcopy(model).eval()
    weights: list[Merge] = []
    norms: list[Merge] = []
    with torch.no_grad():
        for name, block in blocks(folded):
            if not isinstance(block, Block):
                _require_plain(name, block)
                continue
            if parametrize.is_parametrized(block.linear):
                kinds = (type(kind[0]).__name__.strip("_") for kind in block.linear.parametrizations.values())  # type: ignore[operator]
                weights.append(Merge(name, f"weight computed once ({', '.join(kinds)})", name))
                _compute(block.linear)
            if block.norm is not None:
                _require_foldable(name, block)
                norms.append(Merge(name, type(block.norm).__name__, name))
                _merge(block.linear, block.norm)
                block.norm = None
    return folded, weights + norms


def _merge(linear: Any, norm: Any) -> None:
    """Put the norm that follows `linear` at once into it."""
    dtype, mean = linear.weight.dtype, norm.running_mean.double()
    mean = mean if getattr(norm, "centres", True) else torch.zeros_like(mean)
    var, eps = (torch.ones_like(mean), 0.0) if norm.running_var is None else (norm.running_var.double(), norm.eps)
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    fuse = fuse_linear_bn_weights if isinstance(linear, nn.Linear) else fuse_conv_bn_weights
    bias = None if linear.bias is None else linear.bias.double()
    weight, bias = fuse(linear.weight.double(), bias, mean, var, eps, gamma, beta)
    linear.weight, linear.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))


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


def _require_foldable(name: str, block: Any) -> None:
    """Raise Unfoldable, unless the block's norm is a constant factor and shift of its linear layer in evaluation."""
    norm, over = block.norm, axes_of(block.norm) or ()
    keeps = isinstance(norm, _BatchNorm) and norm.running_mean is not None
    if keeps and "features" not in over and getattr(norm, "own_share", None) is None:
        if block.placement == "before" or block.activation is None:
            return
        reason = "the activation stands between it and the layer. Use norm.placement=before."
    elif "examples" in over and not keeps:
        reason = "it works with the other examples of a batch in evaluation, too."
    elif over:
        reason = (
            "it divides by statistics of the example itself, which are others for every image, "
            "so no constant factor and shift can replace it."
        )
    else:
        reason = "it keeps no running mean, and only norms that do are a constant factor and shift in evaluation."
    raise Unfoldable(f"{type(norm).__name__} in {name} can't be folded: {reason}")


def _require_plain(name: str, block: Recorded) -> None:
    """Recurrent cells: statistics are per time step and stand between two products, one of them with the state."""
    if block.norms:
        raise Unfoldable(
            f"{name} can't be folded: in a recurrent cell each time step has statistics of its own, so that one "
            "weight matrix can't hold them. Fold an MLP or a CNN."
        )
    if any(parametrize.is_parametrized(module) for module in block.modules()):
        raise Unfoldable(f"{name} can't be folded: re-parametrised weights of recurrent cells are left as they are.")
