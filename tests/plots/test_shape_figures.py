"""Landscape, time steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from normbench.analysis.groups import read
from normbench.plots import landscape, time_steps
from normbench.runs import load
from tests.study_files import measure

Add = Callable[..., Path]


def test_only_positive_numbers_of_one_kind(study: Path, add: Add) -> None:
    row = dict.fromkeys(landscape.NUMBERS, 1.0) | {"kind": "absolute", "step": 0}
    measure(add(), "landscape", [row, row | {"kind": "relative"}, row | {"step": 2, "change_min": 0}])
    (run,) = read(load(study)).members
    found = landscape._kind(run, "absolute")
    assert found.step.tolist() == [0, 2]
    assert np.isnan(found.change_min.iloc[1])
    assert found.change_max.tolist() == [1, 1]


def test_along_the_sequence_at_the_end(study: Path, add: Add) -> None:
    rows = [{"step": s, "layer": "cell", "tensor": "linear", "bn_mode": w, "time": t, "mean": 10 * s + t, "std": 1}
            for s in (0, 3) for w in ("probe", "running") for t in (4, 0)]  # fmt: skip
    measure(add(), "time_steps", rows)
    (run,) = read(load(study)).members
    assert time_steps.along(run, "cell", "linear", "mean").to_dict() == {0: 30, 4: 34}
    assert len(time_steps.along(run, "cell", "activation", "mean")) == 0
