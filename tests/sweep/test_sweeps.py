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
from pathlib import Path
from unittest.mock import Mock

import pytest

from normbench import load
from normbench.cli import main
from normbench.config.run_config import RunConfig
from normbench.experiment import execute
from normbench.runs import Run, RunFolder
from normbench.sweep.plan import jobs_of, make_plan
from normbench.sweep.pool import start, wait_for
from normbench.sweep.runner import run_plan

pytestmark = pytest.mark.usefixtures("own_folder")
TORTURE = Path(__file__).parents[2] / "scripts" / "torture.py"
TINY = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8"]
TINY += ["model.hidden=[8]", "device=cpu", "max_steps=40"]

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


def test_a_run_that_fails_in_any_way_is_told_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "trouble.py").write_text(TROUBLE)
    (tmp_path / "mine" / "norm").mkdir(parents=True)
    for kind in ("raises", "memory", "hangs", "killed"):
        text = f"_target_: trouble.Trouble\nname: {kind}\nkind: {kind}\n"
        (tmp_path / "mine" / "norm" / f"{kind}.yaml").write_text(text)
    words = ["run", "-m", "--config-dir", "mine", *TINY, "study=s"]
    assert main([*words, "norm=hangs", "cell_timeout=4"]) == 1
    assert "it took longer than cell_timeout=4 seconds" in capsys.readouterr().out
    assert main([*words, "norm=raises,none,memory,killed,layer", "jobs=3"]) == 1
    printed = capsys.readouterr()
    assert "5 runs: 2 ran, 3 failed" in printed.out
    for reason in ("RuntimeError: it broke", "can't allocate memory",
                   "its process was killed by SIGKILL (out of memory?)"):  # fmt: skip
        assert reason in printed.out
        assert reason in printed.err, "told at once, too"
    assert "report: results/s/report/report.html" in printed.out
    assert sorted(load("results/s").runs["status"]) == ["complete"] * 2 + ["failed"] * 4
    assert main(["status", "results/s"]) == 0
    listed = capsys.readouterr().out
    assert "2 complete, 4 failed" in listed
    assert "RuntimeError: it broke" in listed


def test_two_sweeps_share_a_study(run_config: Callable[..., RunConfig]) -> None:
    """One of them finds a run taken, and waits for it, or takes it over when it is left unfinished."""
    both = [run_config("max_steps=40", f"seed={seed}") for seed in range(2)]
    with RunFolder(both[0].folder) as folder:
        folder.start({"config": {}})
        plan, view = make_plan(both), Mock()
        assert [item.status for item in plan.items] == ["running", "new"]
        threading.Timer(2.0, folder.__exit__, (None, None, None)).start()  # the other process dies
        outcome = run_plan(plan, view)
    assert (outcome.ran, outcome.by_others, outcome.failed) == (2, 0, {})
    shown = [call.args[0].folder for call in view.finished.call_args_list]
    assert sorted(shown) == sorted(one.folder for one in both)
    view.failed.assert_not_called()


def test_a_run_that_another_process_finishes_counts_once(run_config: Callable[..., RunConfig]) -> None:
    both = [run_config("max_steps=40", f"seed={seed}") for seed in range(2)]
    with RunFolder(both[0].folder) as folder:
        folder.start({"config": {}})
        plan = make_plan(both)

        def end() -> None:
            folder.__exit__(None, None, None)
            execute(both[0])

        timer = threading.Timer(1.0, end)
        timer.start()
        outcome = run_plan(plan, Mock())
        timer.join()
    assert outcome.failed == {}
    assert outcome.ran + outcome.by_others == 2


def test_a_removed_folder_is_a_failure_and_is_made_anew(run_config: Callable[..., RunConfig]) -> None:
    one = run_config("max_steps=100000")
    worker = start(one, again=False)
    while not (one.folder / "steps.csv").exists():
        time.sleep(0.02)
    shutil.rmtree(one.folder, ignore_errors=True)
    with RunFolder(one.folder) as other:  # by now it belongs to somebody else
        other.start({"config": {}})
        while not worker.ended:
            wait_for([worker], 0.5)
            worker.listen()
        assert worker.result == "failed"
        assert "was removed while it was being written" in worker.error
        assert sorted(path.name for path in one.folder.iterdir()) == [".lock", "config.yaml", "epochs.csv", "steps.csv"]
        assert len((one.folder / "steps.csv").read_text().splitlines()) == 1, "nothing of the first one's in it"


def test_a_run_that_is_asked_to_stop_continues_to_the_same_end(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    whole = execute(run_config("max_steps=400", "model.dropout=0.2", results_dir=str(tmp_path / "whole")))
    one, asked = run_config("max_steps=400", "model.dropout=0.2"), iter(range(10**6))
    for _ in range(3):
        with pytest.raises(Exception, match="stopped at step"):
            execute(one, stop=lambda: next(asked) % 111 == 110)
        assert (one.folder / "checkpoint").exists()
        assert not (one.folder / "error.json").exists()
        assert Run(one.folder).status == "interrupted"
    run = execute(one)
    for table in ("steps", "epochs"):
        ours, theirs = (getattr(which, table).drop(columns="train_seconds") for which in (run, whole))
        assert ours.equals(theirs), table
    assert run.summary["test_loss"] == whole.summary["test_loss"]


@pytest.mark.parametrize("sweep", [True, False])
def test_ctrl_c_loses_nothing_and_leaves_nobody(tmp_path: Path, sweep: bool) -> None:
    words = [*TINY, "max_steps=1000000", "study=s", *(["-m", "seed=0,1,2"] if sweep else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "normbench", "run", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        start_new_session=True, text=True,
    )  # fmt: skip
    side_by_side = min(2, len(os.sched_getaffinity(0))) if sweep else 1
    while len(list(tmp_path.glob("results/s/*/steps.csv"))) < side_by_side:
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
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


def test_what_was_done_can_be_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-m", *TINY, "norm=none,layer", "study=s"]
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("results").glob("s/*/summary.json")}
    assert main(words) == 0
    assert "2 runs: 0 ran, 2 were finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main([*words, "rerun=all"]) == 0
    assert "2 runs: 2 ran" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns > before[path] for path in before)


def test_shards_run_their_parts_and_make_up_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "-m", *TINY, "norm=none,layer", "seed=0,1", "study=s"]
    for part in ("1/2", "2/2"):
        assert main([*words, f"shard={part}"]) == 0
        assert "2 runs: 2 ran" in capsys.readouterr().out
    assert main(words) == 0
    assert "4 runs: 0 ran, 4 were finished before" in capsys.readouterr().out
    assert main([*words, "norm=none", "seed=0", "shard=2/2"]) == 2
    assert "this shard holds no run" in capsys.readouterr().err


def test_jobs(run_config: Callable[..., RunConfig]) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert jobs_of(run_config()) == cores
    assert jobs_of(run_config(jobs=7)) == 7
    assert jobs_of(run_config(threads=10**6)) == 1
    assert jobs_of(run_config(device="cuda:0")) == 1


def test_status_watches_until_nothing_runs(
    run_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    execute(run_config("max_steps=40"))
    with RunFolder(run_config("max_steps=41").folder) as folder:
        folder.start({"config": {}, "overrides": ["norm=batch", "max_steps=41"], "total_steps": 41})
        threading.Timer(1.0, folder.__exit__, (None, None, None)).start()
        assert main(["status", "results/scratch", "--watch"]) == 0
    printed = capsys.readouterr().out
    assert "1 complete, 1 interrupted" in printed
    assert "norm=batch max_steps=41  step 0 of 41" in printed
    assert main(["status", "nowhere"]) == 2
    assert "nowhere is no folder, so it holds no runs" in capsys.readouterr().err


@pytest.mark.parametrize("rounds", [3, pytest.param(200, marks=pytest.mark.full)])
def test_torture(rounds: int) -> None:
    """Disturbances at random moments."""
    command = [sys.executable, str(TORTURE), "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Nothing lost, nothing twice." in done.stdout
