"""Schemes: how the hidden layers of a network are normalised. Start with `scheme.py`, then `batch.py`."""

from normbench.norms.batch import BatchNorm, RecurrentBatchNorm
from normbench.norms.block import Block, Observed, Unsupported, blocks, uses_batch
from normbench.norms.layer import LayerNorm, RecurrentLayerNorm
from normbench.norms.mean_only import MeanOnlyBatchNorm, RecurrentMeanOnlyBatchNorm, recurrent_mean_only
from normbench.norms.scheme import NormScheme
from normbench.norms.weight import weight_norm

__all__ = [
    "BatchNorm",
    "Block",
    "LayerNorm",
    "MeanOnlyBatchNorm",
    "NormScheme",
    "Observed",
    "RecurrentBatchNorm",
    "RecurrentLayerNorm",
    "RecurrentMeanOnlyBatchNorm",
    "Unsupported",
    "blocks",
    "recurrent_mean_only",
    "uses_batch",
    "weight_norm",
]
