"""The schemes by name: what `norm=batch` and the others are made of. Files of configs/norm name them as `_target_`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from normbench.noise import AlphaDropout
from normbench.norms.activations import DynamicTanh
from normbench.norms.batch import BatchNorm, RecurrentBatchNorm
from normbench.norms.batch_renorm import BatchRenorm
from normbench.norms.ghost_batch import GhostBatchNorm, RecurrentGhostBatchNorm
from normbench.norms.group import GroupNorm, InstanceNorm
from normbench.norms.layer import LayerNorm, LayerNorm2d, PerStep, RecurrentLayerNorm, RMSNorm
from normbench.norms.noisy_batch import NoisyBatchNorm
from normbench.norms.scheme import NormScheme
from normbench.norms.weight import MeanOnlyBatchNorm, data_dependent_init, recurrent_mean_only
from normbench.norms.weight import weight_norm as reparametrize_weight
from normbench.norms.weight import weight_standardization as standardize_weight


def none() -> NormScheme:
    """The plain network."""
    return NormScheme(data_dependent_init=data_dependent_init)


def batch(*, per_step: bool, gamma: float, **options: Any) -> NormScheme:
    """Batch normalization; in recurrent cells with statistics per time step. Options: as in BatchNorm."""
    recurrent = partial(RecurrentBatchNorm, per_step=per_step, gamma=gamma, **options)
    return NormScheme(norm=partial(BatchNorm, **options), recurrent_norm=recurrent)


def ghost_batch(*, gamma: float, **options: Any) -> NormScheme:
    """Ghost batch normalization. Options: as in GhostBatchNorm."""
    recurrent = partial(RecurrentGhostBatchNorm, gamma=gamma, **options)
    return NormScheme(norm=partial(GhostBatchNorm, **options), recurrent_norm=recurrent)


def batch_renorm(**options: Any) -> NormScheme:
    """Batch renormalization, which has no form for recurrent cells. Options: as in BatchRenorm."""
    return NormScheme(norm=partial(BatchRenorm, **options))


def noisy_batch(**options: Any) -> NormScheme:
    """Batch normalization and noise, which has no form for recurrent cells. Options: as in NoisyBatchNorm."""
    return NormScheme(norm=partial(NoisyBatchNorm, **options))


def mean_only(*, momentum: float | None, affine: bool, per_step: bool) -> NormScheme:
    """Mean-only batch normalization."""
    recurrent = partial(recurrent_mean_only, momentum=momentum, per_step=per_step)
    return NormScheme(norm=partial(MeanOnlyBatchNorm, momentum=momentum, affine=affine), recurrent_norm=recurrent)


def weight() -> NormScheme:
    """Weight normalization."""
    return NormScheme(reparametrize=reparametrize_weight, data_dependent_init=data_dependent_init)


def weight_mean_only(*, momentum: float | None, affine: bool, per_step: bool) -> NormScheme:
    """Weight normalization with mean-only batch normalization."""
    norms = mean_only(momentum=momentum, affine=affine, per_step=per_step)
    return NormScheme(
        reparametrize=reparametrize_weight,
        norm=norms.norm,
        recurrent_norm=norms.recurrent_norm,
        data_dependent_init=data_dependent_init,
    )


def weight_standardization(**options: Any) -> NormScheme:
    """Scaled weight standardization. Options: as in `weight.weight_standardization`."""
    return NormScheme(reparametrize=partial(standardize_weight, **options))


def layer(**options: Any) -> NormScheme:
    """Layer normalization. Options: as in LayerNorm."""
    return NormScheme(norm=partial(LayerNorm, **options), recurrent_norm=partial(RecurrentLayerNorm, **options))


def layer2d(**options: Any) -> NormScheme:
    """Layer normalization over the channels of each pixel. Options: as in LayerNorm2d."""
    return _without_memory(partial(LayerNorm2d, **options))


def group(**options: Any) -> NormScheme:
    """Group normalization. Options: as in GroupNorm."""
    return _without_memory(partial(GroupNorm, **options))


def instance(**options: Any) -> NormScheme:
    """Instance normalization. Options: as in InstanceNorm."""
    return _without_memory(partial(InstanceNorm, **options))


def rms(**options: Any) -> NormScheme:
    """RMS normalization. Options: as in RMSNorm."""
    return _without_memory(partial(RMSNorm, **options))


def dynamic_tanh(**options: Any) -> NormScheme:
    """Dynamic tanh. Options: as in DynamicTanh."""
    return _without_memory(partial(DynamicTanh, **options))


def selu() -> NormScheme:
    """Self-normalizing networks: N(0, 1/fan_in) weights, SELU and alpha dropout."""
    init = partial(nn.init.kaiming_normal_, mode="fan_in", nonlinearity="linear")
    return NormScheme(activation=nn.SELU, init_=init, dropout=AlphaDropout)


def _without_memory(norm: Callable[[int], nn.Module]) -> NormScheme:
    """A norm that keeps nothing from batch to batch: in recurrent cells the same one serves every time step."""
    return NormScheme(norm=norm, recurrent_norm=partial(PerStep, norm=norm))


def make_scheme(make: partial[Any], **common: Any) -> NormScheme:
    """The scheme that a file of configs/norm describes.

    Args:
        make: its `_target_` with its own options: a function that returns a NormScheme, or a norm's class, called with
            the number of features for each block. A class alone has no form for recurrent cells.
        common: what every scheme may be given: name, placement, statistics, init_images.

    Raises: TypeError if it is neither, ValueError or TypeError for options that it does not accept.
    """
    is_norm = isinstance(make.func, type) and issubclass(make.func, nn.Module)
    scheme = NormScheme(norm=make) if is_norm else make()
    if not isinstance(scheme, NormScheme):
        kind = type(scheme).__name__
        raise TypeError(f"norm={common.get('name')}: _target_ must be a norm's class or make a NormScheme: got {kind}.")
    return replace(scheme, **common)
