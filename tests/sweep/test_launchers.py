"""Hydra's launchers run the same runs into the same folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from normbench import load
from normbench.cli import main

TINY = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "device=cpu"]
TINY += ["batch_size=8", "model.hidden=[8]", "max_steps=20", "instruments=none"]
LAUNCHERS = {
    "submitit_local": ["hydra.launcher.timeout_min=5"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs
@pytest.mark.usefixtures("few")
def test_the_same_runs_into_the_same_folders(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    monkeypatch.chdir(tmp_path)
    # a launcher's processes are started anew and find the package as any other program would
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    words = ["run", "-m", *TINY, "norm=none,batch", "batch_size=1,8", "study=s"]
    assert main([*words, f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]) == 0
    assert "4 runs: 3 ran, 1 is unsupported" in capsys.readouterr().out
    theirs = load("results/s")
    assert sorted(theirs.runs["status"]) == ["complete", "complete", "complete", "unsupported"]
    assert main([*words, "study=ours"]) == 0
    for run in load("results/ours"):
        same = next(other for other in theirs if other.folder.name == run.folder.name)
        assert same.summary.get("test_loss") == run.summary.get("test_loss")
    capsys.readouterr()
    assert main([*words, f"hydra/launcher={launcher}"]) == 0
    assert "4 runs: 0 ran, 4 were finished before" in capsys.readouterr().out


def test_a_wrong_setting_of_a_launcher_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "seed=0,1", "hydra/launcher=submitit_local"]
    assert main(["run", "-m", *words, "hydra.launcher.timeout_min=null"]) == 2
    assert "field 'hydra.launcher.timeout_min' is not Optional" in capsys.readouterr().err
    assert main(["describe", "-m", *words]) == 2
    assert "hydra/launcher is for normbench run -m alone." in capsys.readouterr().err
    assert main(["run", "-m", "hydra/launcher=nope"]) == 2
    assert not list(tmp_path.glob("results/*/*"))
