"""Schemes: how the hidden layers of a network are normalised. Start with `scheme.py`, then `batch.py`."""

from normbench.norms.batch import BatchNorm, MeanOnlyBatchNorm, VarianceOnlyBatchNorm
from normbench.norms.block import Block, Recorded, blocks, record_activations, show_both_sides
from normbench.norms.fold import Unfoldable, fold
from normbench.norms.layer import LayerNorm, PerStep, RMSNorm
from normbench.norms.scheme import NormScheme
from normbench.norms.state import (
    axes_of,
    batch_statistics,
    keep_buffers,
    preserve_state,
    use_batch_statistics,
    uses_batch,
)
from normbench.norms.statistics import (
    KINDS,
    Batches,
    MeanVar,
    average_statistics,
    evaluates_by_example,
    exact_statistics,
    images_at_once,
    images_in_one_pass,
    load_statistics,
    mean_and_var,
    statistics_for,
    statistics_of,
    use_own_share,
    varies,
    working_with,
)
from normbench.norms.switchable import SwitchableNorm
from normbench.norms.weight import weight_norm

__all__ = [
    "KINDS",
    "BatchNorm",
    "Batches",
    "Block",
    "LayerNorm",
    "MeanOnlyBatchNorm",
    "MeanVar",
    "NormScheme",
    "PerStep",
    "RMSNorm",
    "Recorded",
    "SwitchableNorm",
    "Unfoldable",
    "VarianceOnlyBatchNorm",
    "average_statistics",
    "axes_of",
    "batch_statistics",
    "blocks",
    "evaluates_by_example",
    "exact_statistics",
    "fold",
    "images_at_once",
    "images_in_one_pass",
    "keep_buffers",
    "load_statistics",
    "mean_and_var",
    "preserve_state",
    "record_activations",
    "show_both_sides",
    "statistics_for",
    "statistics_of",
    "use_batch_statistics",
    "use_own_share",
    "uses_batch",
    "varies",
    "weight_norm",
    "working_with",
]
