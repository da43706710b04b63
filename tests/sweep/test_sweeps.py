"""Sweeps that finish, whatever happens to one of their runs, or to themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from normbench import load
from normbench.cli import main
from normbench.config.run_config import RunConfig
from normbench.experiment import compose, execute
from normbench.runs import RunFolder
from normbench.sweep import runner
from normbench.sweep.plan import make_plan
from normbench.sweep.pool import Report, Worker, wait_for
from normbench.sweep.runner import run_plan

pytestmark = pytest.mark.usefixtures("own_folder", "few")
TORTURE = Path(__file__).parents[2] / "scripts" / "torture.py"
TINY = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8"]
TINY += ["model.hidden=[8]", "device=cpu", "max_steps=40", "instruments=none"]

# A user's scheme that gives trouble in training, not when it is looked at.
TROUBLE = """
import os, resource, signal, time, torch

class Trouble(torch.nn.Identity):
    def __init__(self, features, kind):
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, x):
        self.calls += x.device.type != "meta"
        if self.calls > 5:
            if self.kind == "raises":
                raise RuntimeError("it broke")
            if self.kind == "memory":
                resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
                torch.empty(1 << 36)
            if self.kind == "hangs":
                time.sleep(10000)
            os.kill(os.getpid(), signal.SIGKILL)
        return x
"""


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep ends without building its report, which takes longer than a few small runs."""
    monkeypatch.setattr("normbench.commands.run._report", lambda run_config, code: code)


def test_a_run_that_fails_in_any_way_is_told_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "trouble.py").write_text(TROUBLE)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    for kind in ("raises", "memory", "hangs", "killed"):
        text = f"_target_: trouble.Trouble\nname: {kind}\nkind: {kind}\n"
        (tmp_path / "mine" / "norm" / f"{kind}.yaml").write_text(text)
    words = ["run", "-m", "--config-dir", "mine", *TINY, "study=s", "norm=raises,none,memory,killed,hangs"]
    assert main([*words, "jobs=3", "cell_timeout=10"]) == 1
    printed = capsys.readouterr()
    assert "5 runs: 1 ran, 4 failed" in printed.out
    for reason in ("RuntimeError: it broke", "can't allocate memory", "it took longer than cell_timeout=10 seconds",
                   "its process was killed by SIGKILL (out of memory?)"):  # fmt: skip
        assert reason in printed.out
        assert reason in printed.err, "told at once, too"
    assert "report: results/s/report/report.html" in printed.out
    assert sorted(load("results/s").runs["status"]) == ["complete"] + ["failed"] * 4
    assert main(["status", "results/s"]) == 0
    listed = capsys.readouterr().out
    assert "1 complete, 4 failed" in listed
    assert "RuntimeError: it broke" in listed


@pytest.mark.parametrize("finishes", [True, False])
def test_two_sweeps_share_a_study(run_config: Callable[..., RunConfig], finishes: bool) -> None:
    """One of them finds a run taken: it waits for it, and takes it over when it is left unfinished."""
    both = [run_config("max_steps=40", f"seed={seed}") for seed in range(2)]
    with RunFolder(both[0].folder) as folder:
        folder.start({"config": {}})
        plan, view = make_plan(both), Mock()
        assert [item.status for item in plan.items] == ["running", "new"]

        def end() -> None:  # the other process dies, or comes to its end
            folder.__exit__(None, None, None)
            if finishes:
                execute(both[0])

        timer = threading.Timer(0.5, end)
        timer.start()
        outcome = run_plan(plan, view)
        timer.join()
    assert outcome.failed == {}
    assert (outcome.ran, outcome.by_others) in ([(2, 0), (1, 1)] if finishes else [(2, 0)])
    shown = [call.args[0].folder for call in view.finished.call_args_list]
    assert sorted(shown) == sorted(one.folder for one in both)
    view.failed.assert_not_called()


def test_a_removed_folder_is_a_failure_and_is_made_anew(run_config: Callable[..., RunConfig]) -> None:
    one = run_config("max_steps=100000")
    worker = Worker()
    worker.start((one,))
    while not (one.folder / "steps.csv").exists():
        time.sleep(0.02)
    shutil.rmtree(one.folder, ignore_errors=True)
    with RunFolder(one.folder) as other:  # by now it belongs to somebody else
        other.start({"config": {}})
        [report] = _reports(worker)
        assert report.kind == "failed"
        assert "was removed while it was being written" in report.text
        assert sorted(path.name for path in one.folder.iterdir()) == [".lock", "config.yaml", "epochs.csv", "steps.csv"]
        assert len((one.folder / "steps.csv").read_text().splitlines()) == 1, "nothing of the first one's in it"
    worker.kill("")


def _reports(worker: Worker) -> list[Report]:
    """What it says of its task, to the end."""
    reports = []
    while worker.left:
        wait_for([worker], 0.5)
        reports += worker.listen()
    return reports


# A user's scheme that changes the process that it trains in.
LEAKS = """
import random, numpy, torch

class Leaks(torch.nn.Identity):
    def __init__(self, features):
        super().__init__()

    def forward(self, x):
        if x.device.type != "meta":
            torch.manual_seed(5), numpy.random.seed(5), random.seed(5)
            torch.set_num_threads(3)
            torch.set_flush_denormal(True)
            torch.set_default_dtype(torch.float64)
        return x
"""


def test_a_process_trains_one_run_after_another_and_each_as_if_it_were_alone(
    run_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaks.py").write_text(LEAKS)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    (tmp_path / "mine" / "norm" / "leaks.yaml").write_text("_target_: leaks.Leaks\nname: leaks\n")
    runs = [run_config("norm=batch", "model.dropout=0.1", f"seed={seed}", f"threads={2 - seed % 2}", jobs=1)
            for seed in range(6)]  # fmt: skip
    runs[2] = compose(["--config-dir=mine", *TINY, "norm=leaks", "seed=2"])
    runs[4] = run_config("norm=batch", "max_steps=1000000", "seed=4", cell_timeout=0.5)
    made = Mock(wraps=Worker)
    monkeypatch.setattr(runner, "Worker", made)
    outcome = run_plan(make_plan(runs), Mock())
    assert (outcome.ran, list(outcome.failed)) == (5, [runs[4].name])
    assert made.call_count == 3, "a new process after code of the user's own, and after a failure"
    for one in (runs[1], runs[3], runs[5]):
        alone = execute(replace(one, config={**one.config, "results_dir": str(tmp_path / "alone")}))
        ours, theirs = (torch.load(folder / "model.pt") for folder in (one.folder, alone.folder))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("execute", "number"), [("processes", signal.SIGHUP), ("stacked", signal.SIGINT), ("", signal.SIGINT)]
)
def test_a_signal_from_the_terminal_loses_nothing_and_leaves_nobody(tmp_path: Path, execute: str, number: int) -> None:
    """Ctrl-C, and a terminal that is closed: all processes get it, be it of a sweep or of a single run."""
    sweep = ["-m", "seed=0,1,2", "jobs=2", f"execute={execute}"] if execute else []
    words = [*TINY, "max_steps=1000000", "study=s", *sweep]
    process = subprocess.Popen(
        [sys.executable, "-m", "normbench", "run", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # under nohup it is ignored, and stays so
    )  # fmt: skip
    while len([path for path in tmp_path.glob("results/s/*/steps.csv") if path.stat().st_size > 100]) < (
        2 if sweep else 1
    ):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.endswith("normbench: interrupted; repeat the command to continue\n")
    assert "Traceback" not in printed
    study = load(tmp_path / "results" / "s")
    assert {run.status for run in study} == {"interrupted"}
    assert all((run.folder / "checkpoint").exists() for run in study)
    limit = time.monotonic() + 20
    while _lives(process.pid):  # the server notices a little later that its sweep has ended
        assert time.monotonic() < limit, "somebody is left of its group"
        time.sleep(0.1)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("no_report")
def test_parts_make_up_the_whole_and_what_was_done_is_done_again_only_if_asked_or_damaged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["run", "-m", *TINY, "norm=none,layer", "seed=0,1", "study=s"]
    for part in ("1/2", "2/2"):
        assert main([*words, f"shard={part}"]) == 0
        assert "2 runs: 2 ran" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in Path("results").glob("s/*/summary.json")}
    assert main(words) == 0
    assert "4 runs: 0 ran, 4 were finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    damaged, foreign = (path.parent for path in list(before)[:2])
    (damaged / "summary.json").write_text("{")
    shutil.copy(list(before)[2], foreign / "summary.json")
    assert main(["plan", *words[2:]]) == 0
    printed = capsys.readouterr().out
    assert f"damaged, will be done again: {damaged.name}: summary.json is cut off" in printed
    assert f"damaged, will be done again: {foreign.name}: summary.json is another run's" in printed
    assert main(["status", "results/s"]) == 0
    assert "2 complete, 2 unreadable" in capsys.readouterr().out
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "4 runs: 2 ran, 2 were finished before" in printed.out
    assert printed.err.count("its folder is kept as .damaged/") == 2
    assert sorted(path.name for path in Path("results/s/.damaged").iterdir()) == sorted([damaged.name, foreign.name])
    assert main([*words, "norm=none", "seed=0", "rerun=all"]) == 0
    assert "1 run: 1 ran" in capsys.readouterr().out
    assert main([*words, "norm=none", "seed=0", "shard=2/2"]) == 2
    assert "this shard holds no run" in capsys.readouterr().err


def test_status_watches_until_nothing_runs(
    run_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normbench.commands.status.SECONDS", 0.2)
    execute(run_config("max_steps=40"))
    with RunFolder(run_config("max_steps=41").folder) as folder:
        folder.start({"config": {}, "overrides": ["norm=batch", "max_steps=41"], "total_steps": 41})
        threading.Timer(0.5, folder.__exit__, (None, None, None)).start()
        assert main(["status", "results/scratch", "--watch"]) == 0
    printed = capsys.readouterr().out
    assert "1 complete, 1 interrupted" in printed
    assert "norm=batch max_steps=41  step 0 of 41" in printed
    assert main(["status", "nowhere"]) == 2
    assert "nowhere is no folder, so it holds no runs" in capsys.readouterr().err


@pytest.mark.parametrize(("rounds", "steps"), [(1, 300), pytest.param(200, 1500, marks=pytest.mark.full)])
def test_torture(rounds: int, steps: int) -> None:
    """Disturbances at random moments."""
    command = [sys.executable, str(TORTURE), "--rounds", str(rounds), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Nothing lost, nothing twice." in done.stdout
