"""Weight normalization and its relatives: weights re-parametrised, each unit's mean, and a start that fits the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from normbench.errors import Unsupported
from normbench.norms.batch import RunningStatistics
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


class MeanOnlyBatchNorm(RunningStatistics):
    """y = x - mean + beta, mean over the batch (and space), per feature.

    Weight normalisation fixes the scale of a unit but not its mean; this fixes the mean. In training, `mean` is that of
    the mini-batch; in evaluation, its running average. The gradient through it is centred: its mean over the batch
    is 0.

    Args:
        features: C, the size of axis 1.
        momentum: weight of the new batch in the running average; None for the plain average over training.
        affine: learn beta (`bias`, starts at 0).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: the result would be beta, whatever the input.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 4.
    """

    invariant_to = ("data shifted",)
    called = "Mean-only batch norm"

    def __init__(self, features: int, *, momentum: float | None = 0.1, affine: bool = True, **time_steps: Any) -> None:
        super().__init__(features, eps=0.0, momentum=momentum, affine=affine, **time_steps)
        self.weight = self.running_var = None  # type: ignore[assignment]

    def by_averages(self, x: Tensor, mean: Tensor, var: Tensor | None) -> Tensor:
        shift = mean if self.bias is None else mean - self.bias
        return x - (shift if x.dim() == 2 else shift.view(-1, *[1] * (x.dim() - 2)))

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        mean = x.mean((0, *range(2, x.dim())))
        return self.by_averages(x, mean, None), mean.detach(), None


class RecurrentMeanOnlyBatchNorm(MeanOnlyBatchNorm):
    """y = x - mean_t inside a recurrent cell, with the statistics of each time step t.

    It follows each normalised weight matrix, as in a feed-forward layer; the cell adds the one bias. No paper gives a
    recipe for recurrent cells: this is the direct reading of Salimans & Kingma's section 4 with the per-step statistics
    of Cooijmans et al. 2016.

    Args: as RecurrentBatchNorm. `place="state"` is refused by the scheme: no weight matrix precedes the cell's state.
    Shape: ([N, features], t) -> [N, features].
    Raises: Unsupported in training with one value per feature.
    """

    def __init__(
        self, features: int, steps: int, place: str, *, momentum: float | None = 0.1, per_step: bool = True
    ) -> None:
        own, updates = (steps, 1) if per_step else (1, steps)
        super().__init__(features, momentum=momentum, affine=False, steps=own, updates=updates)


def recurrent_mean_only(features: int, steps: int, place: str, **options: object) -> nn.Module | None:
    """`recurrent_norm` of weight normalisation with mean-only batch norm: after W_x, W_h, not on the cell's state."""
    if place == "state":
        return None
    return RecurrentMeanOnlyBatchNorm(features, steps, place, **options)  # type: ignore[arg-type]


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
    weight: Tensor = linear.parametrizations.weight.original0 if parametrized else linear.weight  # type: ignore
    weight.mul_(scale.view(-1, *[1] * (weight.dim() - 1)))
    if bias is None:
        return t * per_unit(scale)
    bias.copy_(torch.where(moves, -mean * scale, bias))
    return t * per_unit(scale) + per_unit(bias)
