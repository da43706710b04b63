"""`normbench fold`: what it prints, what it leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from normbench import load
from normbench.cli import main
from normbench.verify import folding
from normbench.verify.folding import compare

TINY = ["dataset=synthetic", "dataset.examples=600", "dataset.validation=100", "dataset.size=8", "device=cpu"]
TINY += ["batch_size=8", "max_steps=9", "instruments=none", "model.hidden=[12]"]


@pytest.fixture(autouse=True)
def quick(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "ROUNDS", 1)
    monkeypatch.setattr(folding, "MILLISECONDS_A_TURN", 0.0)


def run(*words: str) -> Path:
    assert main(["run", *TINY, *words]) == 0
    [found] = load("results/scratch")
    return found.folder


def test_it_compares_times_and_writes(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("norm=batch")
    capsys.readouterr()
    assert main(["fold", str(folder)]) == 0
    printed = capsys.readouterr().out
    for words in ("hidden1  BatchNorm  hidden1", "the same", "float64", "batch size", "folded.pt2"):
        assert words in printed
    facts = json.loads((folder / "folded.json").read_text())
    assert [c["precision"] for c in facts["comparisons"]] == ["float32", "float64"]
    assert facts["comparisons"][0]["difference"] < 1e-4
    assert facts["comparisons"][1]["difference"] < 1e-10
    assert [latency["batch_size"] for latency in facts["latencies_ms"]] == [1, 16, 256]
    weights = torch.load(folder / "folded.pt", weights_only=True)
    assert set(weights) == {f"{layer}.linear.{part}" for layer in ("hidden1", "output") for part in ("weight", "bias")}
    program = torch.export.load(folder / "folded.pt2").module()
    assert program(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert load("results/scratch").runs.status.tolist() == ["complete"]
    assert main(["fold", str(folder)]) == 0
    assert main(["run", *TINY, "norm=batch", "rerun=all"]) == 0
    assert not list(folder.glob("folded*"))  # of other weights


def test_nothing_to_fold_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("norm=selu")
    capsys.readouterr()
    assert main(["fold", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("norm=selu: there is nothing to fold.")
    assert not list(folder.glob("folded*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["norm=layer"], "norm=layer: LayerNorm in hidden1 can't be folded: it divides by statistics of the example"),
        (["norm=batch", "save_model=false"], "has no weights (model.pt): it ran with save_model=false, or the file"),
        (["norm=batch", "norm.statistics=batch"], "norm.statistics=batch, the statistics of each test batch: no fixed"),
        (["norm=none", "lr=1e30", "optimizer=sgd", "log_every=1"], "must be complete to have trained weights:"),
    ],
)
def test_a_run_that_cant_be_folded(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fold", str(run(*words))]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("normbench: error: ")
    assert message in error


def test_folders_that_are_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("norm=batch")

    def error(of: str | Path) -> str:
        assert main(["fold", str(of)]) == 2
        return capsys.readouterr().err

    capsys.readouterr()
    assert "results/<study>/<run>: nothing is no folder." in error("nothing")
    assert f"It is a study; its runs are {folder.name}." in error(folder.parent)
    (folder / "model.pt").write_bytes(b"cut off")
    assert "can't be read: model.pt has 7 bytes, not" in error(folder)
    (folder / "summary.json").unlink()
    assert "is interrupted." in error(folder)
    (folder / "config.yaml").write_text("")
    assert "can't be read: config.yaml is empty" in error(folder)


class Shifted(nn.Module):
    def __init__(self, by: list[float]) -> None:
        super().__init__()
        self.by = torch.tensor(by)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def test_a_changed_class_is_rounding_only_where_its_margin_was_below_the_difference() -> None:
    class Images:
        index = torch.arange(2)
        logits = torch.tensor([[1.0, 0.0], [0.00001, 0.0]])

        def __len__(self) -> int:
            return 2

        def batch(self, places: torch.Tensor) -> tuple[torch.Tensor, None]:
            return self.logits[places], None

    images: Any = Images()
    near = compare(nn.Identity(), Shifted([0.0, 0.00005]), images)
    assert [(c.image, c.before, c.after) for c in near.changed] == [(1, 0, 1)]
    assert near.changed[0].margin == pytest.approx(1e-5)
    assert near.equal
    assert not compare(nn.Identity(), Shifted([0.0, 0.01]), images).equal  # too far
    halves = compare(nn.Identity(), Shifted([-0.000006, 0.000006]), images)  # each by less than the margin
    assert halves.changed
    assert not halves.equal


def test_a_network_that_is_not_the_same_is_not_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("norm=batch")
    monkeypatch.setitem(folding.LARGEST, "float64", 0.0)
    assert main(["fold", str(folder)]) == 1
    assert "is not the same. Nothing was written." in capsys.readouterr().out
    assert not list(folder.glob("folded*"))
