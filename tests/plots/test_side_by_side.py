"""Figures drawn by several processes are those that one draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.plots import side_by_side
from normbench.report.build import build
from normbench.sweep import pool as workers


def test_many_runs_are_drawn_by_two_processes_to_the_same_bytes(
    study: Path, add: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for norm in ("none", "batch"):
        for batch_size in (4, 64):
            add(norm=norm, batch_size=batch_size)
    alone = {path: path.read_bytes() for path in build(study).files}
    # The first server of a process is its only one, and tests of sweeps, in the same process, want theirs with torch.
    workers.start_server()
    monkeypatch.setattr(side_by_side, "FEW", 1)
    pids: list[object] = []
    monkeypatch.setattr(side_by_side, "draw_all", pids.append)  # never called here: the workers have their own
    assert {path: path.read_bytes() for path in build(study, jobs=2).files} == alone
    assert pids == []
