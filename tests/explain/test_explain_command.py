"""`normbench explain`, as a user meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import normbench
from normbench.cli import main

TINY = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "device=cpu", "model.hidden=[12]"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NORMBENCH_DATA", str(tmp_path / "no-data"))


def files(folder: Path) -> dict[Path, Any]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_the_calculation_and_the_worksheet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["norm=batch", *TINY, "--unit", "3", "max_steps=30"]
    assert main(["explain", *words]) == 0
    printed = capsys.readouterr().out
    for text in ("batch · mlp · synthetic", "a mini-batch of 4", "trained for 30 steps", "unit 3 (of 0 to 11)",
                  "3. Standardise", "z_i = (o_i - mean) / sqrt(var + eps)", "10. Folded"):  # fmt: skip
        assert text in printed
    assert "____" not in printed
    assert main(["explain", *words, "--worksheet", "--html", "../sheet.html"]) == 0
    assert "z_i = (o_i - mean) / sqrt(var + eps)" in (tmp_path.parent / "sheet.html").read_text()
    sheet, key = capsys.readouterr().out.split("\nKey\n")
    assert "____" in sheet
    assert "____" not in key
    table = printed.split("3. Standardise\n")[1].split("\n\n")[0].splitlines()[2:]
    assert "\n".join(table) in key, "the key holds the numbers of the calculation"
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_training_on_the_spot_is_that_of_run_which_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["norm=batch", *TINY, "batch_size=4", "max_steps=30"]
    assert main(["explain", *words, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    run = normbench.run([*words, "instruments=none"])
    before = files(tmp_path)
    capsys.readouterr()
    assert main(["explain", "--run", str(run.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == there["steps"]
    assert main(["explain", "--run", str(run.folder), "norm=batch", "batch_size=3"]) == 0
    assert "a mini-batch of 3" in capsys.readouterr().out
    assert files(tmp_path) == before


def test_bad_input(
    capsys: pytest.CaptureFixture[str], refused: Callable[[list[str], str], None], tmp_path: Path
) -> None:
    run = normbench.run(["norm=batch", *TINY, "max_steps=5", "instruments=none"]).folder
    without = normbench.run(
        ["norm=batch", *TINY, "max_steps=5", "instruments=none", "seed=1", "save_model=false"]
    ).folder
    damaged = tmp_path / "results" / "scratch" / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "model.pt").write_bytes(b"no weights")
    other = tmp_path / "results" / "scratch" / "other"
    shutil.copytree(run, other)
    torch.save({"hidden1.linear.weight": torch.zeros(2)}, other / "model.pt")
    unfinished = tmp_path / "results" / "scratch" / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "summary.json").unlink()
    capsys.readouterr()
    for words, message in [
        (
            ["norm=batch", *TINY, "--unit", "99", "max_steps=1"],
            "there is no unit 99 in layer hidden1: it has 12, from 0 to 11.",
        ),
        (["norm=batch", *TINY, "--unit", "x"], "argument --unit: invalid int value: 'x'. See normbench explain --help"),
        (
            ["norm=batch", *TINY, "--layer", "conv1", "max_steps=1"],
            "there is no layer conv1. Layers of this network: hidden1, output.",
        ),
        (["norm=batch", *TINY, "batch_size=1"], "BatchNorm needs two values per feature to train: got a batch of 1."),
        (["norm=bogus"], "norm is one of batch, "),
        (["-m", *TINY, "norm=batch,layer"], "explain looks at one network"),
        (["--json", "--worksheet"], "not allowed with argument"),
        (
            ["--run", "nowhere"],
            "a run's folder is needed, results/<study>/<run>: nowhere is no folder. There are, for instance: results/",
        ),
        (["--run", str(run), "batch_size=1"], "BatchNorm needs two values per feature to train: got a batch of 1."),
        (["--run", str(run), "batch_size=0"], "batch_size must be a whole number, 1 or more"),
        (["--run", str(run), "batch_size=4000"], "batch_size must be at most the 500 training images: got 4000."),
        (["--run", str(run), "norm=layer"], "is a run of norm=batch: got norm=layer. Leave it out."),
        (["--run", str(run), "model=cnn"], "with --run, the network is the run's"),
        (["--run", str(without)], "has no weights (model.pt): it ran with save_model=false, or the file was removed."),
        (["--run", str(damaged)], "can't be read: model.pt has 10 bytes, not "),
        (["--run", str(other)], "can't be read: model.pt has "),
        (["--run", str(unfinished)], "a run must be complete to have trained weights: "),
    ]:
        refused(["explain", *words], message)


def test_a_network_that_diverges(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "norm=none", *TINY, "lr=1e30", "optimizer=sgd"]) == 2
    assert "the network diverged within 200 steps: its loss is no longer finite." in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["explain", "--help"])
    printed = capsys.readouterr().out
    for words in ("--layer", "--unit", "--run", "--worksheet", "--json", "normbench explain norm=batch batch_size=4"):
        assert words in printed
