"""Sweeps whose runs train in stacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from normbench import load
from normbench.cli import main
from normbench.config.run_config import RunConfig
from normbench.sweep.plan import make_plan

SMALL = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8"]
SMALL += ["model.hidden=[8]", "device=cpu", "epochs=2"]

# A user's schemes: one that can't be stacked, and one that dies in training.
MINE = """
import os, signal, torch

class Draws(torch.nn.Identity):
    def forward(self, x):
        return x + 0.1 * torch.rand(x.shape[1:], device=x.device)

class Dies(torch.nn.Identity):
    calls = 0

    def forward(self, x):
        self.calls += x.device.type != "meta"
        if self.calls > 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return x
"""


def files(study: Path) -> set[str]:
    return {str(path.relative_to(study)) for path in study.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("report", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_sweep_in_stacks_has_the_results_of_one_in_processes(
    report: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not report:
        monkeypatch.setattr("normbench.commands.run._report", lambda run_config, code: code)
    grid = [
        "-m",
        *SMALL,
        "instruments=quick",
        "instruments.snapshots=4",
        "norm=none,batch",
        "lr=0.001,0.01",
        "seed=0,1,2",
        "optimizer=adam",
        "study=s",
    ]
    assert main(["plan", *grid[1:], "execute=stacked"]) == 0
    assert "in stacks, 6 runs at once: 12 runs, 2 stacks" in capsys.readouterr().out
    for execute in ("stacked", "processes"):
        assert main(["run", *grid, f"execute={execute}", f"results_dir={execute}", "jobs=2"]) == 0
    stacked, apart = (load(f"{execute}/s") for execute in ("stacked", "processes"))
    assert files(Path("stacked/s")) == files(Path("processes/s"))
    assert {run.record["executed"]["stack"] for run in stacked} == {6}
    both = [study.runs.set_index("run").sort_index() for study in (stacked, apart)]
    assert list(both[0].index) == list(both[1].index)
    assert both[0]["test_accuracy"].to_numpy() == pytest.approx(both[1]["test_accuracy"].to_numpy(), abs=0.02)
    settings = ["norm", "lr"]
    groups = [runs.groupby(settings)["test_accuracy"] for runs in both]
    least, most = groups[1].min(), groups[1].max()
    assert groups[0].median().between(least - 1e-9, most + 1e-9).all()


@pytest.mark.usefixtures("own_folder")
def test_what_cannot_be_stacked_and_a_stack_that_dies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "my" / "norm").mkdir(parents=True)
    for name in ("Draws", "Dies"):
        (tmp_path / "my" / "norm" / f"{name.lower()}.yaml").write_text(f"_target_: mine.{name}\nname: {name}\n")
    words = ["run", "-m", "--config-dir", "my", *SMALL, "study=s", "execute=stacked", "instruments=none", "jobs=1"]
    assert main([*words, "norm=draws,dies,none", "seed=0,1"]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("2 runs can't be stacked, to be trained one by one: RuntimeError: vmap") == 1
    assert "6 runs: 4 ran, 2 failed" in printed.out
    assert printed.err.count("its process was killed by SIGKILL (out of memory?)") == 2
    assert {run.record["choices"]["norm"]: run.record["executed"]["stack"] for run in load("results/s")} == {
        "draws": None, "dies": 2, "none": 2,
    }  # fmt: skip


def test_what_is_stacked(run_config: Callable[..., RunConfig]) -> None:
    def tasks(*run_configs: RunConfig) -> list[int]:
        return [len(task) for task in make_plan(run_configs).tasks]

    first = run_config(execute="stacked")
    same = [run_config("seed=1", "lr=0.1", "weight_decay=0.1", "momentum=0.5", execute="stacked"),
            run_config("model.init_scale=2", execute="stacked")]  # fmt: skip
    assert tasks(first, *same) == [3]
    others = ("norm=layer", "batch_size=4", "max_steps=7", "optimizer=sgd", "norm.eps=1e-3", "log_every=7")
    assert tasks(first, *(run_config(word, execute="stacked") for word in others)) == [1] * (1 + len(others))
    assert tasks(*(run_config(f"seed={seed}") for seed in range(3))) == [1, 1, 1]


def test_stacks_are_no_larger_than_memory_allows_and_of_equal_size(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_config(f"seed={seed}", execute="stacked") for seed in range(9)]
    monkeypatch.setattr("normbench.experiment.prepare.LARGEST", 4)
    assert [len(task) for task in make_plan(runs).tasks] == [3, 3, 3]
    monkeypatch.setattr("normbench.experiment.prepare.free_memory", lambda device: 10**5)
    (fits,) = {item.fits for item in make_plan(runs).items}
    assert 1 <= fits < 4
