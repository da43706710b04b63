"""Studies as a full disk, a kill or a person leaves them: the rest of the report is whole, and says what is wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.report.build import build
from normbench.runs import SCHEMA_VERSION

pytestmark = pytest.mark.usefixtures("unsaved")

Add = Callable[..., Path]
BAND = [(-2.0, -1.0, 0.0, 1.0, 2.0), (-3.0, -1.5, 0.0, 1.5, 3.0)]


def plain(text: str) -> str:
    """The words of a page."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_half_written_tables_do_no_harm(study: Path, add: Add) -> None:
    add(norm="none", layers={"a/linear": BAND})
    tables = {
        "batch": b"",
        "layer": b"step,sam",
        "selu": b"step,samples\n1,",
        "rms": b"\xff\x00\n\n",
        "group": b"a,b\n1,2,3,4\n",
    }
    for norm, data in tables.items():
        for status in ("interrupted", "complete"):
            path = add(norm=norm, status=status, seed=int(status == "complete"))
            for name in ("steps", "epochs", "measured/activations", "measured/shift"):
                (path / f"{name}.csv").write_bytes(data)
    gone = add(norm="weight")
    for path in [*gone.glob("*.csv"), *gone.glob("measured/*.csv")]:
        path.unlink()
    text = plain(build(study).page.read_text())
    assert "could not be drawn" not in text.lower()
    assert "5 interrupted" in text


def test_folders_that_cannot_be_read_are_named_with_the_reason(study: Path, add: Add) -> None:
    for seed in (0, 1):
        add(norm="none", seed=seed)
        add(norm="batch", seed=seed)
    damages: dict[str, tuple[str, bytes, str]] = {
        "cut": ("config.yaml", b"schema_version: %d\nchoices:\n  norm: ba" % SCHEMA_VERSION, "config.yaml has no c"),
        "torn": (
            "config.yaml",
            b"schema_version: %d\nchoices: {norm: [" % SCHEMA_VERSION,
            "config.yaml can&#39;t be read",
        ),
        "empty": ("config.yaml", b"", "config.yaml is empty"),
        "old": ("config.yaml", b"schema_version: 1\nchoices: {}\nconfig: {}\n", "schema_version is 1"),
        "foreign": ("config.yaml", b"hello\n", "config.yaml is not that of a run"),
        "binary": ("config.yaml", bytes(range(256)), "config.yaml can&#39;t be read"),
        "half": ("summary.json", b'{"status": "compl', "summary.json is cut off"),
        "list": ("summary.json", b"[1, 2]", "summary.json is not that of a run"),
    }
    for name, (file, data, _) in damages.items():
        path = add(norm="layer")
        (path / file).write_bytes(data)
        path.rename(study / name)
    (study / "no-run").mkdir()
    (study / "link").symlink_to(study / "nowhere")
    (study / "notes.txt").write_text("mine")
    (study / "config.yaml.d").mkdir()
    (study / "folder").mkdir()
    (study / "folder" / "config.yaml").mkdir()
    report = build(study)
    text = report.page.read_text()
    for name, (_, _, words) in damages.items():
        assert re.search(rf'<th scope="row">{name}</th><td>[^<]*{re.escape(words)}', text), name
    assert "no-run</th><td>has no config.yaml" in text
    assert "4 runs: 2 schemes, 1 setting, 2 seeds. 4 complete." in plain(text)
    assert "notes.txt" not in text
    assert len(report.leaderboard.rows) == 2
    assert build(study).page.read_text() == text  # the report's own folder is no run


DEEP = b"[" * 100_000


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("summary.json", b'"test_accuracy": 0.9', b'"test_accuracy": NaN'),
        ("summary.json", b'"test_accuracy": 0.9', b'"test_accuracy": 7.0'),
        ("summary.json", b'"validation_accuracy": 0.89', b'"validation_accuracy": "x"'),
        ("summary.json", b'"test_accuracy"', b'"a": ' + DEEP + b', "test_accuracy"'),
        ("summary.json", b"", None),
        ("config.yaml", b"lr: 0.001", b"lr: fast"),
        ("config.yaml", b"lr: 0.001", b"lr: .nan"),
        ("config.yaml", b"seed: 0", b"seed: zero"),
        ("config.yaml", b"seed: 0", b"seed: " + DEEP),
        ("config.yaml", b"batch_size: 64", b"batch_size: [1, 2]"),
        ("config.yaml", b"choices:", b"choices: 3\nothers:"),
        ("config.yaml", b"", None),
    ],
)
def test_one_bad_run_is_named_and_the_others_are_reported(
    study: Path, add: Add, file: str, old: bytes, new: bytes | None
) -> None:
    """`new` None: a directory where the file should be."""
    for seed in (0, 1):
        add(norm="none", seed=seed)
    path = add(norm="batch")
    data = (path / file).read_bytes()
    assert old in data
    (path / file).unlink()
    (path / file).mkdir() if new is None else (path / file).write_bytes(data.replace(old, new))
    report = build(study)
    assert f'<th scope="row">{path.name}</th><td>' in report.page.read_text()
    assert "2 runs: 1 scheme, 1 setting, 2 seeds. 2 complete." in plain(report.page.read_text())


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("value", [b"3", b"[1, x]", b"text", b"{a: 1}", b"null"])
def test_values_of_any_kind_are_read(study: Path, add: Add, value: bytes) -> None:
    """What no number is made of may be anything: a report is built all the same."""
    add(norm="none")
    for key in (b"versions", b"machine", b"git_commit", b"overrides"):
        path = add(norm="batch")
        text = re.sub(rb"(?ms)^" + key + rb":.*?(?=^\S)|^" + key + rb":.*\Z", key + b": " + value + b"\n",
                      (path / "config.yaml").read_bytes())  # fmt: skip
        (path / "config.yaml").write_bytes(text)
        assert build(study).page.exists()
    for key in (b'"dataset"', b'"seconds"', b'"measured"', b'"parameters"', b'"steps"'):
        path = add(norm="batch")
        words = {b"[1, x]": b'[1, "x"]', b"text": b'"text"', b"{a: 1}": b'{"a": 1}'}.get(value, value)
        text = (path / "summary.json").read_bytes()
        (path / "summary.json").write_bytes(text.replace(key, key + b": " + words + b', "other"', 1))
        assert build(study).page.exists()


@pytest.mark.usefixtures("few")
def test_directories_where_tables_and_messages_should_be(study: Path, add: Add) -> None:
    add(norm="none")
    path = add(norm="batch", status="failed")
    for name in ("error.json", "epochs.csv", "steps.csv"):
        (path / name).unlink()
        (path / name).mkdir()
    assert "1 complete, 1 failed." in plain(build(study).page.read_text())
    (path / "error.json").rmdir()
    (path / "error.json").write_text('{"error": "it bro')
    assert "error.json is cut off or damaged" in build(study).page.read_text()


def test_only_a_config(study: Path, add: Add) -> None:
    """As a run that was killed in its first moment."""
    add(norm="none")
    path = add(norm="batch", status="interrupted")
    for child in path.iterdir():
        if child.name != "config.yaml":
            shutil.rmtree(child) if child.is_dir() else child.unlink()
    assert "1 complete, 1 interrupted." in plain(build(study).page.read_text())


def test_no_run_at_all(tmp_path: Path, study: Path, add: Add) -> None:
    with pytest.raises(FileNotFoundError, match="holds no runs"):
        build(study)
    assert list(study.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="is no folder"):
        build(tmp_path / "nowhere")
    path = add(norm="none")
    with pytest.raises(FileNotFoundError, match="is a single run"):
        build(path)
    (path / "config.yaml").write_text("schema_version: 1\n")
    with pytest.raises(FileNotFoundError, match=r"no run that can be read: .*schema_version is 1"):
        build(study)
    assert not (study / "report").exists()
