"""Schemes: how the hidden layers of a network are normalised. Start with `scheme.py`, then `batch.py`."""

from normbench.errors import Unsupported
from normbench.norms.batch import BatchNorm, RecurrentBatchNorm
from normbench.norms.batch_renorm import BatchRenorm
from normbench.norms.block import Block, Recorded, blocks, record_activations, show_both_sides
from normbench.norms.data_init import data_dependent_init
from normbench.norms.dynamic_tanh import DynamicTanh
from normbench.norms.fold import Merge, Unfoldable, fold
from normbench.norms.ghost_batch import GhostBatchNorm, RecurrentGhostBatchNorm
from normbench.norms.group import GroupNorm
from normbench.norms.inference import KINDS, Batches, average_statistics, statistics_for, working_with
from normbench.norms.instance import InstanceNorm
from normbench.norms.layer import LayerNorm, RecurrentLayerNorm
from normbench.norms.layer2d import LayerNorm2d
from normbench.norms.mean_only import MeanOnlyBatchNorm, RecurrentMeanOnlyBatchNorm, recurrent_mean_only
from normbench.norms.noisy_batch import NoisyBatchNorm
from normbench.norms.precise import (
    MeanVar,
    exact_statistics,
    images_at_once,
    load_statistics,
    mean_and_var,
    statistics_of,
    varies,
)
from normbench.norms.recurrent import PerStep
from normbench.norms.rms import RMSNorm
from normbench.norms.scheme import NormScheme
from normbench.norms.state import keep_buffers, preserve_state, use_batch_statistics, uses_batch
from normbench.norms.weight import weight_norm
from normbench.norms.weight_standardization import weight_standardization

__all__ = [
    "KINDS",
    "BatchNorm",
    "BatchRenorm",
    "Batches",
    "Block",
    "DynamicTanh",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LayerNorm2d",
    "MeanOnlyBatchNorm",
    "MeanVar",
    "Merge",
    "NoisyBatchNorm",
    "NormScheme",
    "PerStep",
    "RMSNorm",
    "Recorded",
    "RecurrentBatchNorm",
    "RecurrentGhostBatchNorm",
    "RecurrentLayerNorm",
    "RecurrentMeanOnlyBatchNorm",
    "Unfoldable",
    "Unsupported",
    "average_statistics",
    "blocks",
    "data_dependent_init",
    "exact_statistics",
    "fold",
    "images_at_once",
    "keep_buffers",
    "load_statistics",
    "mean_and_var",
    "preserve_state",
    "record_activations",
    "recurrent_mean_only",
    "show_both_sides",
    "statistics_for",
    "statistics_of",
    "use_batch_statistics",
    "uses_batch",
    "varies",
    "weight_norm",
    "weight_standardization",
    "working_with",
]
