"""The lesson itself, on real digits, where there are any on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from normbench.experiment import compose, execute

MNIST = Path(os.environ.get("NORMBENCH_DATA", "/nowhere"))
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not any((MNIST / where).exists() for where in ("MNIST/raw", "normbench/mnist")), reason="no MNIST here"
    ),
]


def test_batch_norm_helps_at_64_and_hurts_at_4(tmp_path: Path) -> None:
    """Expected from 20,000 images, three seeds: at 4, batch 90.3 and none 93.3; at 64, batch 94.7 and none 93.2."""
    accuracy = {
        (norm, batch_size): execute(
            compose([f"norm={norm}", f"batch_size={batch_size}", "max_samples=20000", "device=cpu",
                     f"results_dir={tmp_path}", "instruments=none", "evaluations=1"])
        ).summary["test_accuracy"]
        for norm in ("none", "batch")
        for batch_size in (4, 64)
    }  # fmt: skip
    assert min(accuracy.values()) > 0.87
    assert accuracy["batch", 64] > accuracy["none", 64]
    assert accuracy["batch", 4] < accuracy["none", 4] - 0.01
