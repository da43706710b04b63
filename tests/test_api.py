"""`normbench.run` in a program of the user's own: it leaves that program's state alone."""

from __future__ import annotations

import random
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock

import normbench
from normbench.cli import main
from normbench.training import device

pytestmark = pytest.mark.usefixtures("own_folder")
SMALL = ["dataset=synthetic", "dataset.examples=60", "dataset.validation=10", "dataset.size=8", "device=cpu"]
TF32 = {"allow_tf32": True, "fp32_precision": "tf32"}
SMALL += ["batch_size=6", "model.hidden=[4]", "max_steps=3", "instruments=none"]


def test_a_run_leaves_the_callers_random_numbers_threads_and_precision_alone() -> None:
    def values() -> list[Any]:
        return [value for _, _, value in device._settings()]

    def draws() -> list[float]:
        return [torch.rand(1).item(), random.random(), float(np.random.rand())]  # noqa: NPY002

    threads, settings = torch.get_num_threads(), device._settings()
    torch.set_num_threads(2)
    torch.backends.cudnn.benchmark = True
    device._set((module, key, TF32[key]) for module, key, _ in settings if key in TF32)
    theirs = values()
    try:
        expected = []
        for train in (False, True):
            torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
            before = draws()
            if train:
                normbench.run([*SMALL, "threads=1"])
            expected.append(before + draws())
        assert expected[0] == expected[1]
        assert torch.get_num_threads() == 2
        assert values() == theirs
        device.calculate_exactly()
        assert values() == [device.EXACT[key] for _, key, _ in settings]
        assert not torch.backends.cudnn.allow_tf32  # torch's own code may ask by the older name
    finally:
        torch.set_num_threads(threads)
        device._set(settings)


def test_runs_in_two_threads_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    words = [[*SMALL, f"norm={norm}", "model.dropout=0.5"] for norm in ("none", "batch", "layer", "weight")]
    alone = [normbench.run([*of_one, "results_dir=alone"]).summary["test_loss"] for of_one in words]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda of_one: normbench.run([*of_one, "results_dir=together"]).summary, words))
    assert [summary["test_loss"] for summary in found] == alone


def test_it_works_inside_anothers_hydra_application(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("theirs: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert normbench.run([*SMALL, "seed=4"]).config["seed"] == 4
        assert hydra.compose("config") == {"theirs": 1}


def test_what_is_wrong_is_an_error_of_ours() -> None:
    for words in (["norm=bogus"], ["lr=["], ["batch_size=1"], ["dataset.path=x"], ["lr=0.1,1"], ["--bogus"], ["=="]):
        with pytest.raises(normbench.UserError):
            normbench.run([*SMALL, *words])
    folder = normbench.run(SMALL).folder
    (folder / "summary.json").unlink()
    with FileLock(folder / ".lock"), pytest.raises(normbench.UserError, match="is being written by another process"):
        normbench.run(SMALL)


def test_an_expression_is_recorded_with_what_it_came_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for task in ("1", "2"):
        monkeypatch.setenv("TASK", task)
        found.append(normbench.run([*SMALL, "seed=${oc.env:TASK}", "norm=${oc.env:NORM,none}"]))
    assert [run.config["seed"] for run in found] == [1, 2]
    record = yaml.safe_load((found[1].folder / "config.yaml").read_text())
    assert record["written"] == {"seed": "${oc.env:TASK}"}
    assert record["choices"]["norm"] == "none"
    monkeypatch.delenv("TASK")
    assert normbench.run(shlex.split(record["command"])[2:]).folder == found[1].folder
    assert main(shlex.split(record["command"])[1:]) == 0
