"""A full disk, a folder that is gone, a terminal that knows little: one line, and what is done is kept."""

from __future__ import annotations

import ast
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import normbench
from normbench.cli import main
from normbench.runs import Run, Table
from normbench.sweep.runner import requests_to_stop

TINY = ["dataset=synthetic", "dataset.size=8", "dataset.examples=600", "dataset.validation=100", "device=cpu"]
TINY += ["batch_size=8", "model.hidden=[8]", "max_steps=30", "instruments=none", "log_every=5"]
pytestmark = pytest.mark.usefixtures("own_folder")


def no_space(*about: object, **more: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_stops_a_run_which_then_continues(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, append, calls = normbench.run([*TINY, "study=whole"]), Table.append, iter(range(100))
    words = ["run", *TINY, "checkpoint_seconds=0"]
    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", lambda table, rows: append(table, rows) if next(calls) < 6 else no_space())
        assert main(words) == 1
    printed = capsys.readouterr().err
    assert printed.endswith("the run stopped: [Errno 28] No space left on device. Repeat the command to continue it.\n")
    assert "Traceback" not in printed
    [checkpoint] = own_folder.glob("results/scratch/*/checkpoint")
    assert main(words) == 0
    assert "continues at step" in capsys.readouterr().err
    run = Run(checkpoint.parent)
    ours, theirs = (torch.load(one.folder / "model.pt", weights_only=True) for one in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_report_that_cannot_be_built_leaves_the_runs(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("normbench.report.build", no_space)
    assert main(["run", "-m", *TINY, "norm=none"]) == 1
    assert "the runs are over, but there is no report: OSError: [Errno 28] No space" in capsys.readouterr().err
    assert [Run(path.parent).status for path in own_folder.glob("results/*/*/summary.json")] == ["complete"]


def test_a_lock_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    open_any = os.open

    def open_others(path: object, *about: int, **more: int) -> int:
        if str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied")
        return open_any(path, *about, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_others)
        assert main(["run", *TINY]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("normbench: error: ")
    assert line.endswith("/.lock can't be opened: Permission denied. Remove it.")


def test_a_working_folder_that_was_removed(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[list[str], str], None]
) -> None:
    gone = own_folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (["list"], ["run", *TINY], ["report"]):
        refused(words, "the working folder was removed")
    monkeypatch.chdir(own_folder)


def test_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch, refused: Callable[[list[str], str], None]) -> None:
    monkeypatch.setenv("NORMBENCH_DATA", "~nobody-of-this-name")
    refused(["run", "dataset=mnist"], "Check data_dir and $NORMBENCH_DATA.")


def test_a_terminal_of_few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle dot between scheme and model becomes a question mark."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        assert main(["run", *TINY, "max_steps=2"]) == 0
    screen.flush()
    assert b"batch ? mlp ? synthetic" in screen.buffer.getvalue()  # type: ignore[attr-defined]


def test_no_text_is_read_or_written_in_the_encoding_of_the_place() -> None:
    """Each text file of ours is UTF-8 wherever it is read: Latin-1 systems exist."""
    silent = []
    for path in sorted(Path(normbench.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            of, binary = ast.unparse(node.func.value), any('b"' in ast.unparse(a).replace("'", '"') for a in node.args)
            others = node.func.attr == "open" and of in ("Image", "os", "tarfile", "webbrowser")
            text = node.func.attr in ("read_text", "write_text", "open") and not (binary or others)
            if text and "encoding" not in [keyword.arg for keyword in node.keywords]:
                silent.append(f"{path.name}:{node.lineno}")
    assert not silent


@pytest.mark.parametrize("ignored", [True, False])
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(ignored: bool) -> None:
    """As under nohup, for SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with requests_to_stop() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == [signal.SIGHUP] * (not ignored)
    finally:
        signal.signal(signal.SIGHUP, before)
