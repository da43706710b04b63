"""Numbers of a run's summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from normbench.data import Dataset
from normbench.norms import uses_batch


def dataset_facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name, "checksum": dataset.checksum, "synthetic": dataset.synthetic,
        "classes": len(dataset.classes), "train": len(dataset.train), "validation": len(dataset.validation),
        "test": len(dataset.test),
    }  # fmt: skip


def at_chance(accuracy: float, dataset: Dataset) -> bool:
    """Is `accuracy` within three standard errors of always naming the commonest class of the test set, or below it?"""
    labels = dataset.test.labels[dataset.test.index]
    commonest = labels.bincount().max().item() / len(labels)
    return accuracy <= commonest + 3 * math.sqrt(commonest * (1 - commonest) / len(labels))


def remark(model: nn.Module, batch_size: int) -> str | None:
    """What a reader of the results must know of this network at this batch size; None: nothing."""
    if batch_size > 1 or not any(uses_batch(module) for module in model.modules()):
        return None
    return "batches of one: each image is normalised alone, over its positions"


def finite(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
