"""Weights re-parametrised: weight normalization, weight standardization, and a start that fits the data."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normbench.errors import Unsupported
from normbench.norms.block import Block, blocks
from normbench.norms.state import batch_statistics
from normbench.norms.statistics import varies


def weight_norm(linear: nn.Module) -> nn.Module:
    """w = g v / |v|, one g per output unit or channel, |v| over all other axes; started so that w is unchanged.

    torch keeps g as `parametrizations.weight.original0` and v as `parametrizations.weight.original1`.

    Shape: g [C', 1, ...], v as the weight.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 2.
    """
    return parametrizations.weight_norm(linear, name="weight", dim=0)


def with_plain_weight_norm(model: nn.Module) -> nn.Module:
    """A copy that calculates w as torch's kernel does, but by plain operations: `vmap` would call the kernel for each
    network, and its second derivative is wrong (with it the Hessian is not symmetric: torch 2.14).
    """
    copy = deepcopy(model)
    for module in copy.modules():
        if isinstance(module, parametrizations._WeightNorm) and module.dim == 0:
            module.forward = _weight_norm  # type: ignore[method-assign]
    return copy


def _weight_norm(g: Tensor, v: Tensor) -> Tensor:
    return v * (g / torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True))


class WeightStandardization(nn.Module):
    """w = g gain (v - mean(v)) / (sigma(v) sqrt(fan_in)), per output unit or channel, over its fan_in weights.

    For inputs of independent values with mean 0 and variance 1, units then have variance gain^2.

    Args:
        gain: what the activation takes away: sqrt(2 / (1 - 1/pi)) = 1.71286 for ReLU, 1 for the identity.
        eps: smallest fan_in sigma^2; above it, the scale of v plays no part at all.
        affine: learn g, one per unit, which starts at 1.

    Shape: (g [C', 1, ...], v [C', ...]) -> w, shaped as v.
    Source: Brock, De & Smith 2021, arXiv:2101.08692, section 4 (g: their code).
    """

    invariant_to = ("matrix scaled", "vector scaled")

    def __init__(self, gain: float, eps: float) -> None:
        super().__init__()
        self.gain, self.eps = gain, eps

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        var, mean = torch.var_mean(v, tuple(range(1, v.dim())), correction=0, keepdim=True)
        return g * self.gain * (v - mean) * (var * v[0].numel()).clamp(min=self.eps).rsqrt()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """A weight that is set becomes v, and g is 1: w then has the directions of `weight`, and its own length."""
        return torch.ones_like(weight[(slice(None), *[slice(1)] * (weight.dim() - 1))]), weight


def weight_standardization(
    linear: nn.Module, *, gain: float = 1.71286, eps: float = 1e-4, affine: bool = True
) -> nn.Module:
    """Re-parametrise `linear.weight`; g is `parametrizations.weight.original0`, and v `original1`, as in weight norm.

    Raises: Unsupported with one input to a unit: its deviation from the mean is 0.
    """
    weight: Tensor = linear.weight  # type: ignore[assignment]
    if weight[0].numel() == 1:
        raise Unsupported(
            "Weight standardization needs two inputs to a unit: got 1. Use a wider layer, or norm=weight."
        )
    parametrize.register_parametrization(linear, "weight", WeightStandardization(gain, eps))
    linear.parametrizations.weight.original0.requires_grad_(affine)  # type: ignore[union-attr]
    return linear


def data_dependent_init(model: nn.Module, images: Tensor) -> None:
    """g = 1 / sigma[t], b = -mean[t] / sigma[t], with t a unit's pre-activation on `images` without g and b.

    In one pass, block by block, each fed by those already adjusted; afterwards every block's pre-activation on these
    images has mean 0 and variance 1. A plain weight is scaled itself; a block without a bias (a norm subtracts the mean
    anyway) is scaled alone. Units that don't vary are left as they are, and so are recurrent cells: their
    pre-activations depend on the time step. Dropout is off; norms over the batch use that of `images`.

    Nothing else changes: not buffers, modes, gradients or random numbers.

    Args:
        images: [N, C, H, W]; the paper takes 500 for CIFAR-10.

    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3.
    """
    with batch_statistics(model):
        hooks = [b.linear.register_forward_hook(_adjust) for _, b in blocks(model) if isinstance(b, Block)]
        try:
            model(images)
        finally:
            for hook in hooks:
                hook.remove()


def _adjust(linear: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Set scale and bias of `linear` from its output, and return what the output is now."""

    def per_unit(values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (output.dim() - 2))

    bias: Tensor | None = linear.bias  # type: ignore[assignment]
    t = output if bias is None else output - per_unit(bias)
    var, mean = torch.var_mean(t, (0, *range(2, t.dim())), correction=0)
    moves = varies(mean, var)
    scale = torch.where(moves, var.rsqrt(), 1.0)
    parametrized = parametrize.is_parametrized(linear, "weight")
    weight: Tensor = linear.parametrizations.weight.original0 if parametrized else linear.weight  # type: ignore[assignment, union-attr]
    weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)))
    if bias is None:
        return t * per_unit(scale)
    bias.copy_(torch.where(moves, -mean * scale, bias))
    return t * per_unit(scale) + per_unit(bias)
