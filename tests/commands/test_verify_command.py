"""`normbench verify`: its table, its exit code, and a user's own norm."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from normbench.cli import main
from normbench.config.options import choices
from normbench.verify import Result

TWICE = """\
from normbench.norms import BatchNorm
class Mine(BatchNorm):
    def forward(self, x):
        super().forward(x)
        return super().forward(x)
"""
HALF = """\
import torch
class Mine(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
    def forward(self, x):
        return x / (1 + x.abs())
"""


@pytest.fixture(autouse=True)
def forgotten(own_folder: Path) -> Iterator[None]:
    yield
    sys.modules.pop("my_verified", None)


def write(code: str, name: str) -> list[str]:
    Path("my_verified.py").write_text(code)
    Path("own/norm").mkdir(parents=True)
    yaml = f"# mine\n_target_: my_verified.Mine\nname: {name}\n"
    Path("own/norm/mine.yaml").write_text(yaml)
    return ["verify", "--config-dir", "own", "device=cpu", "norm=mine"]


def test_all_schemes_are_verified_where_none_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `verify` finds of each is in tests/verify."""
    result = Result("sane", "dense", True, None, "fine")
    monkeypatch.setattr("normbench.verify.verify", lambda scheme, options, device: [result])
    assert main(["verify", "device=cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert found["device"] == "cpu"
    assert list(found["schemes"]) == [f"norm={name}" for name in choices("norm")]
    assert found["schemes"]["norm=batch"] == [vars(result)]


def test_the_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["verify", "-v", "device=cpu", "norm=batch", "norm.eps=0.1"]) == 0
    printed = capsys.readouterr().out
    assert "norm=batch norm.eps=0.1" in printed
    assert "one update of the running mean and variance per pass" in printed
    assert f"torch {torch.__version__} on cpu: 22 of 22 checks passed" in printed
    assert main(["verify", "device=cpu", "norm=none,weight,layer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["norm=none", "norm=weight", "norm=layer"]
    assert all(re.fullmatch(r"\S+ +(\d+) of \1 checks passed *", line) for line in lines[1:-1]), "a line each"
    assert not list(tmp_path.iterdir())


def test_an_own_norm_that_says_it_is_batch_norm_is_held_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(write(TWICE, "batch")) == 1
    printed = capsys.readouterr().out
    assert "FAILED norm=mine, dense, statistics: " in printed
    assert "checks passed" in printed


def test_an_own_norm_without_reference_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*write(HALF, "mine"), "-v"]) == 0
    printed = capsys.readouterr().out
    assert "no reference" in printed
    assert "keeps no running mean" in printed  # why it can't be folded


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["norm=bogus"], "norm is one of"),
        (["norm=group", "norm.groups=5"], "norm.groups must divide the features of each normalised layer: got 5"),
        (
            ["norm=batch", "norm.momentum=2"],
            "norm.momentum must be above 0 and at most 1, or null: got 2",
        ),
        (["--jsn"], "options are written key=value: got --jsn."),
    ],
)
def test_bad_input(words: list[str], message: str, refused: Callable[[list[str], str], None]) -> None:
    refused(["verify", "device=cpu", *words], message)
