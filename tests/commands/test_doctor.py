"""`normbench doctor`: what there is on this machine, and what to type for what is missing."""

from __future__ import annotations

import io
import sys
import tomllib
from pathlib import Path

import pytest

from normbench.cli import main
from normbench.commands import console
from normbench.commands.doctor import EXTRAS

pytestmark = pytest.mark.usefixtures("own_folder")
ROOT = Path(__file__).parents[2]


def test_a_machine_that_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(
        console, "out", console.SafeConsole(file=shown, width=80, force_terminal=True, color_system=None)
    )
    monkeypatch.setenv("NORMBENCH_DATA", "/data")
    assert main(["doctor", "jobs=3", "threads=2", "device=cpu", "results_dir=new/folder"]) == 0
    printed = shown.getvalue()
    assert "on cpu, 3 side by side (jobs), threads=2 each" in printed
    assert "cifar10        not here: normbench data cifar10" in printed
    assert printed.endswith("no problem was found\n")
    lines = printed.splitlines()
    assert len(lines) <= 23, "with the prompt it fits a terminal"
    assert max(len(line) for line in lines if not console.COMMAND.search(line) and str(tmp_path) not in line) <= 80
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_what_keeps_runs_from_being_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    damaged = tmp_path / "data" / "normbench" / "mnist" / "manifest.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    monkeypatch.setattr("normbench.commands.doctor.PACKAGES", ("torch", "nonsense"))
    assert main(["doctor", "results_dir=file/inside", "data_dir=data", "device=cuda:77"]) == 1
    problems = [line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("!")]
    assert [about for about, _ in problems] == ["missing", "device", "mnist", "results"]
    for (_, text), part in zip(problems, ("pip install nonsense", "Use device=auto", "normbench data mnist",
                                          "Choose another folder: results_dir="), strict=True):  # fmt: skip
        assert part in text
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 1
    assert "! torch            it can't be imported" in capsys.readouterr().out


def test_it_knows_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.keys() - {"dev"} == EXTRAS.keys()
