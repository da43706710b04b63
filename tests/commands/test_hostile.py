"""Run folders and studies from a stranger: nothing that they say is executed, repeated in a command, or sent raw to
the terminal."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from normbench import run
from normbench.cli import main
from normbench.runs.files import file_seals, summary_digest

pytestmark = pytest.mark.usefixtures("own_folder")
SMALL = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "dataset.size=8", "device=cpu"]
SMALL += ["batch_size=8", "model.hidden=[6]", "max_steps=3", "instruments=none"]
COMMANDS = (["evaluate", "{}"], ["fold", "{}"], ["explain", "--run", "{}"])


class Bomb:
    """Unpickling it makes the file `boom` in the working folder."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("boom", "w")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run([*SMALL, f"results_dir={tmp_path_factory.mktemp('trained')}"]).folder


OPEN = {"_target_": "builtins.open", "file": "boom", "mode": "w"}
READ = {"_target_": "pandas.read_pickle", "filepath_or_buffer": "bomb.pkl"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.model.build": READ}, "model.build._target_"),
        ({"config.model.build": {"path": "bomb.pkl"}}, "model.build.path is no option of norm=batch model=mlp"),
        ({"config.model.hidden": [OPEN]}, "model.hidden of a run must be a plain value"),
        ({"config.model.hidden": OPEN}, "model.hidden"),
        ({"config.dataset.path": "${oc.env:HOME}"}, "dataset.path is no option"),
        ({"config.model.activation": "${oc.env:HOME}"}, "model.activation of a run must be a plain value"),
        ({"config.lr": ["x"]}, "lr must be a positive number"),
        ({"choices.norm": "../../evil"}, "norm is one of"),
        ({"choices.norm": "evil"}, "Schemes of your own: --config-dir DIR"),
        ({"choices.model": ["mlp"]}, "model is one of"),
        ({"choices": []}, "config.yaml has no choices"),
    ],
)
def test_what_a_run_folder_says_is_not_executed(
    changes: dict[str, Any], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = change(shutil.copytree(trained, tmp_path / "run"), changes)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    for command in COMMANDS:
        capsys.readouterr()
        code = main([word.format(folder) for word in command])
        printed = capsys.readouterr()
        if "_target_" not in message:  # an extra _target_ is passed over, all else is refused
            assert code in (1, 2), printed.out
            assert message in printed.err
        assert len(printed.err.strip().splitlines()) <= 4
        assert not (tmp_path / "boom").exists()


def test_its_targets_are_passed_over(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The parts are made from our own files: the same numbers, whatever the folder names as their targets."""
    targets = {f"config.{group}._target_": "builtins.open" for group in ("norm", "model", "dataset")}
    folder = change(shutil.copytree(trained, tmp_path / "run"), targets | {"config.instruments": {"measure": OPEN}})
    outputs = []
    for where in (trained, folder):
        assert main(["evaluate", str(where), "--json"]) == 0
        outputs.append(capsys.readouterr().out.replace(str(where), ""))
    assert outputs[0].replace(trained.name, "run") == outputs[1]


def test_a_strangers_study_is_shown_and_nothing_more(
    hostile_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["status", str(hostile_study)], ["report", str(hostile_study)]):
        assert main(command) == 0
        printed = capsys.readouterr()
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed.out + printed.err)
        assert "_target_=" not in printed.out
    page = (hostile_study / "report" / "report.html").read_text()
    assert "norm._target_=os.system" not in page
    assert "/evil" not in page
    assert not (tmp_path / "boom").exists()


def test_escapes_of_a_command_line_or_a_log_are_not_echoed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "norm=\x1b[31mred"]) == 2
    assert main(["\x1b[2J"]) == 2
    assert main(["fold", "\x1b[2J\nnormbench: all is well"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err
    assert len(printed.err.splitlines()) == 3


def change(folder: Path, changes: dict[str, Any]) -> Path:
    """Set values of config.yaml, {"config.model.hidden": 3}."""
    record = yaml.safe_load((folder / "config.yaml").read_text())
    for key, value in changes.items():
        *above, last = key.split(".")
        part = record
        for name in above:
            part = part[name]
        part[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(record))
    summary = json.loads((folder / "summary.json").read_text())  # whoever changes files on purpose seals them anew
    summary["seal"] = {"files": file_seals(folder)}
    summary["seal"]["sha256"] = summary_digest(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
