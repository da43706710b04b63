"""Data-dependent initialisation: each unit's scale and bias set from the first images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normbench.norms.block import Block, blocks
from normbench.norms.precise import varies
from normbench.norms.state import preserve_state, use_batch_statistics


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
    with preserve_state(model):
        use_batch_statistics(model)
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
    weight: Tensor = linear.parametrizations.weight.original0 if parametrized else linear.weight  # type: ignore
    weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)))
    if bias is None:
        return t * per_unit(scale)
    bias.copy_(torch.where(moves, -mean * scale, bias))
    return t * per_unit(scale) + per_unit(bias)
