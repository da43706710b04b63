"""`normbench claims`, in a copy of the package with one small claim and one small study."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.config.options import config_dir

ROOT = Path(__file__).parents[2]
EXPERIMENT = """\
# @package _global_
# Is it smaller? 6 runs, 0.2 minutes.
defaults: [{override /dataset: synthetic}, {override /instruments: none}, _self_]
hydra: {mode: MULTIRUN, sweeper: {params: {norm: "none,batch", seed: "0,1,2"}}}
study: tiny
dataset: {examples: 600, validation: 100, size: 8}
batch_size: 8
max_steps: 6
"""
CLAIM = """\
# batch normalization has more parameters
order: 1
topic: speed and cost
as_stated: Batch normalization adds parameters.
restated: A network without a norm has a bias in its place.
source: counted
study: tiny
figure: forest
checks:
  - {metric: parameters, of: {norm: batch}, against: {norm: none}, expect: higher, margin: 1}
  - {metric: {calculation: bias_is_useless, number: change}, expect: equal, margin: 1.0e-10, answers: [restated]}
"""


@pytest.fixture
def normbench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`normbench("claims", "--run")`: the command, from a copy of the package."""
    site = tmp_path / "site"
    skip = shutil.ignore_patterns("__pycache__", "claims", "experiment")
    shutil.copytree(ROOT / "normbench", site / "normbench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(config_dir(), site / "configs", ignore=skip)
    for folder, name, text in (("experiment", "tiny", EXPERIMENT), ("claims", "more_parameters", CLAIM)):
        (site / "configs" / folder).mkdir()
        (site / "configs" / folder / f"{name}.yaml").write_text(text)
    with (site / "normbench" / "plots" / "figures.py").open(
        "a"
    ) as figures:  # one of them: drawing takes most of the time
        figures.write('\n\nFIGURES = tuple(spec for spec in FIGURES if spec.name == "forest")\n')
    env = {**os.environ, "PYTHONPATH": str(site), "NORMBENCH_DATA": str(tmp_path / "none")}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "normbench", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return call


def test_claims_are_listed_run_settled_and_scored(
    normbench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    listed = normbench("claims")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines() == [
        "more_parameters               not run         Batch normalization adds parameters."
    ]
    in_full = normbench("claims", "more_parameters").stdout
    assert in_full.count("not run") == 2
    assert "normbench run experiment=tiny (0.2 min)" in in_full
    missing = normbench("claims", "--settle")
    assert (missing.returncode, "normbench claims --run" in missing.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == [tmp_path / "site"], "nothing is written"

    done = normbench("claims", "--run", "more_parameters", "--", "device=cpu", "jobs=1", "seed=0,1")
    assert done.returncode == 0, done.stderr
    first, second = "calculating bias_is_useless", "normbench run experiment=tiny device=cpu"
    assert done.stdout.index(first) < done.stdout.index(second)
    assert "4 runs: 4 ran" in done.stdout
    assert "Claim more_parameters" not in done.stdout, "the page has it"
    assert "3 more seeds (" in done.stdout, "two decide nothing"

    settled = normbench("claims", "--settle", "more_parameters", "--", "device=cpu", "jobs=1")
    assert settled.returncode == 0, settled.stderr
    assert "seed=2,3,4" in settled.stdout
    assert settled.stdout.count("✓ supported") == 2
    report = tmp_path / "results" / "claims" / "report"
    assert sorted(path.name for path in report.iterdir()) == [
        "record.json",
        *(f"scoreboard.{k}" for k in ("csv", "html", "md")),
    ]
    assert "2 statements: 2 supported." in (report / "scoreboard.md").read_text()
    again = normbench("claims", "--settle")
    assert "normbench run" not in again.stdout.partition("more_parameters")[0], "nothing is undecided"

    assert normbench("claims").stdout.count("✓ supported") == 1
    with (tmp_path / "site" / "normbench" / "training" / "loop.py").open("a") as loop:
        loop.write("\n\ndef steps(*arguments):\n    raise RuntimeError('broken')\n")
    more = normbench("claims", "--run", "--", "device=cpu", "jobs=1", "seed=0,1,7")
    assert more.returncode == 1, more.stderr
    assert "4 were finished before" in more.stdout
    assert "scoreboard: results/claims/report/scoreboard.html" in more.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "small_batch_fail"], "there is no claim small_batch_fail. There is: small_batch_fails"),
        (["small_batch_fail"], "there is no claim small_batch_fail. There is: small_batch_fails"),
        (["--run", "--", "study=mine"], "a claim has its own study: leave out study=..."),
        (["--run", "small_batch_fails", "--", "bacth_size=4"], "Did you mean batch_size?"),
        (["--run", "ln_ignores_batch", "--", "results_dir=file/in"], "can't be written"),
    ],
)
def test_bad_input(words: list[str], message: str, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from normbench.cli import main

    Path("file").touch()
    assert main(["claims", *words]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["file"]
