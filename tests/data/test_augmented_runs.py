"""Runs whose images are changed anew at each step: a resumed run sees what an undisturbed one saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from normbench.experiment import compose, execute


def test_a_resumed_run_sees_the_same_augmented_images(tmp_path: Path) -> None:
    words = ["dataset=synthetic", "dataset.augment=translate", "max_steps=40", "log_every=10", "checkpoint_seconds=0",
             "model.dropout=0.1", "device=cpu"]  # fmt: skip
    undisturbed = execute(compose([*words, f"results_dir={tmp_path / 'a'}"]))
    cell = compose([*words, f"results_dir={tmp_path / 'b'}"])

    def stop(progress: object) -> None:
        if progress.step == 30:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(cell, stop)
    resumed = execute(cell)
    a, b = (torch.load(run.folder / "model.pt", weights_only=True) for run in (undisturbed, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert undisturbed.summary["test_accuracy"] == resumed.summary["test_accuracy"]
