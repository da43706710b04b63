"""The schemes by name: what `norm=batch` and the others are made of. Files of configs/norm name them as `_target_`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from normbench.noise import AlphaDropout
from normbench.norms.batch import BatchNorm, MeanOnlyBatchNorm, VarianceOnlyBatchNorm
from normbench.norms.batch_renorm import BatchRenorm
from normbench.norms.ghost_batch import GhostBatchNorm
from normbench.norms.layer import (
    DynamicErf,
    DynamicTanh,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LayerNorm2d,
    PerStep,
    RMSNorm,
)
from normbench.norms.noisy_batch import NoisyBatchNorm
from normbench.norms.scheme import NormScheme
from normbench.norms.switchable import SwitchableNorm
from normbench.norms.weight import data_dependent_init
from normbench.norms.weight import weight_norm as reparametrize_weight
from normbench.norms.weight import weight_standardization as standardize_weight


def none() -> NormScheme:
    """The plain network."""
    return NormScheme(data_dependent_init=data_dependent_init)


def batch(*, per_step: bool, gamma: float, **options: Any) -> NormScheme:
    """Batch normalization; in recurrent cells with statistics per time step. Options: as in BatchNorm."""
    recurrent = partial(BatchNorm.in_cell, per_step=per_step, gamma=gamma, **options)
    return NormScheme(norm=partial(BatchNorm, **options), recurrent_norm=recurrent)


def ghost_batch(*, gamma: float, **options: Any) -> NormScheme:
    """Ghost batch normalization. Options: as in GhostBatchNorm."""
    recurrent = partial(GhostBatchNorm.in_cell, gamma=gamma, **options)
    return NormScheme(norm=partial(GhostBatchNorm, **options), recurrent_norm=recurrent)


def mean_only(*, momentum: float | None, affine: bool, per_step: bool) -> NormScheme:
    """Mean-only batch normalization."""
    recurrent = partial(MeanOnlyBatchNorm.in_cell, momentum=momentum, per_step=per_step)
    return NormScheme(norm=partial(MeanOnlyBatchNorm, momentum=momentum, affine=affine), recurrent_norm=recurrent)


def variance_only(*, per_step: bool, gamma: float, **options: Any) -> NormScheme:
    """Variance-only batch normalization. Options: as in RunningStatistics."""
    recurrent = partial(VarianceOnlyBatchNorm.in_cell, per_step=per_step, gamma=gamma, **options)
    return NormScheme(norm=partial(VarianceOnlyBatchNorm, **options), recurrent_norm=recurrent)


def weight() -> NormScheme:
    """Weight normalization."""
    return NormScheme(reparametrize=reparametrize_weight, data_dependent_init=data_dependent_init)


def weight_mean_only(**options: Any) -> NormScheme:
    """Weight normalization with mean-only batch normalization. Options: as in `mean_only`."""
    return replace(mean_only(**options), reparametrize=reparametrize_weight, data_dependent_init=data_dependent_init)


def weight_standardization(**options: Any) -> NormScheme:
    """Scaled weight standardization. Options: as in `weight.weight_standardization`."""
    return NormScheme(reparametrize=partial(standardize_weight, **options))


def selu() -> NormScheme:
    """Self-normalizing networks: N(0, 1/fan_in) weights, SELU and alpha dropout."""
    init = partial(nn.init.kaiming_normal_, mode="fan_in", nonlinearity="linear")
    return NormScheme(activation=nn.SELU, init_=init, dropout=AlphaDropout)


def _in_blocks(norm: Callable[..., nn.Module], **options: Any) -> NormScheme:
    """A norm that has no form for recurrent cells."""
    return NormScheme(norm=partial(norm, **options))


def _of_examples(norm: Callable[..., nn.Module], **options: Any) -> NormScheme:
    """A norm that keeps nothing from batch to batch: in recurrent cells the same one serves every time step."""
    made = partial(norm, **options)
    return NormScheme(norm=made, recurrent_norm=partial(PerStep, norm=made))


# The options of these are those of their norms.
batch_renorm = partial(_in_blocks, BatchRenorm)
noisy_batch = partial(_in_blocks, NoisyBatchNorm)
switchable = partial(_in_blocks, SwitchableNorm)
layer = partial(_of_examples, LayerNorm)
layer2d = partial(_of_examples, LayerNorm2d)
group = partial(_of_examples, GroupNorm)
instance = partial(_of_examples, InstanceNorm)
rms = partial(_of_examples, RMSNorm)
dynamic_tanh = partial(_of_examples, DynamicTanh)
dynamic_erf = partial(_of_examples, DynamicErf)


def make_scheme(make: partial[Any], **common: Any) -> NormScheme:
    """The scheme that a file of configs/norm describes.

    Args:
        make: its `_target_` with its own options: a function that returns a NormScheme, or a norm's class, called with
            the number of features for each block. A class alone has no form for recurrent cells.
        common: what every scheme may be given: name, placement, statistics, init_images.

    Raises: TypeError if it is neither, ValueError or TypeError for options that it does not accept or can't have.
    """
    is_norm = isinstance(make.func, type) and issubclass(make.func, nn.Module)
    scheme = NormScheme(norm=make) if is_norm else make()
    if not isinstance(scheme, NormScheme):
        kind = type(scheme).__name__
        raise TypeError(f"norm={common.get('name')}: _target_ must be a norm's class or make a NormScheme: got {kind}.")
    if common.get("statistics") == "evalnorm" and not getattr(getattr(scheme.norm, "func", None), "by_itself", False):
        raise ValueError(
            "norm.statistics=evalnorm needs a norm that normalises each mini-batch by its own statistics, such as "
            f"norm=batch: got norm={common.get('name')}. Use norm.statistics=ema."
        )
    return replace(scheme, **common)
