"""What the folder of a run says about it, and a study as data frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from normbench.runs import (
    SCHEMA_VERSION,
    Damaged,
    Locked,
    Run,
    RunFolder,
    Unwritable,
    load,
)

RECORD = {
    "choices": {"norm": "batch", "model": "mlp", "dataset": "mnist"},
    "config": {"norm": {"eps": 1e-5}, "model": {}, "lr": 0.1, "seed": 0},
}
END = {"status": "complete", "steps": 1, "samples": 8, "test_accuracy": 0.5, "validation_accuracy": 0.5}


def write(path: Path, end: dict | None = None, **config: object) -> Path:
    with RunFolder(path, {"activations": ["mean"]}) as folder:
        folder.start(RECORD | {"config": {**RECORD["config"], **config}})
        folder.steps.append([{"step": 1, "loss": 0.1 + 0.2}])
        if end is not None:
            folder.finish(end)
    return path


def test_each_status(tmp_path: Path) -> None:
    write(tmp_path / "a", END)
    write(tmp_path / "b", {"status": "diverged"})
    write(tmp_path / "c")
    with RunFolder(tmp_path / "d") as folder:
        folder.start(RECORD)
        folder.fail("ValueError: no", "...")
    with RunFolder(tmp_path / "e") as folder:
        folder.start(RECORD)
        code = f"import sys; from normbench.runs import load; print(*[r.status for r in load({str(tmp_path)!r})])"
        seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert seen == ["complete", "diverged", "interrupted", "failed", "running"]
    runs = load(tmp_path).runs
    assert list(runs["status"]) == ["complete", "diverged", "interrupted", "failed", "interrupted"]
    assert list(runs["norm"]) == ["batch"] * 5
    assert list(load(tmp_path).all_columns["norm.eps"]) == [1e-5] * 5
    assert load(tmp_path).all_columns["error"].iloc[3] == "ValueError: no"


def test_numbers_read_back_as_they_were_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    with (path / "steps.csv").open("ab") as file:
        file.write(b"2,64,0.")
    steps = load(tmp_path).steps
    assert list(steps["loss"]) == [0.1 + 0.2]
    assert list(steps["run"]) == ["a"]


def test_two_processes_never_write_one_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a"):
        code = "import sys; from pathlib import Path; from normbench.runs import RunFolder\n"
        code += "with RunFolder(Path(sys.argv[1])): pass"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True, text=True)
    assert other.returncode == 1
    assert Locked.__name__ in other.stderr


def test_starting_over_removes_what_was_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"status": "complete"})
    (path / "model.pt").write_bytes(b"old")
    write(path)
    assert not (path / "summary.json").exists()
    assert not (path / "model.pt").exists()
    assert len(load(tmp_path).steps) == 1


def test_a_summary_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "a", {"status": "complete", "loss": float("nan")})
    assert not (tmp_path / "a" / "summary.json").exists()
    write(tmp_path / "a", {"status": "complete", "loss": None})
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_a_folder_without_runs_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no runs"):
        load(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unwritable, match="can't be written"), RunFolder(tmp_path / "file" / "a"):
        pass


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("config.yaml", "", "config.yaml is empty"),
        ("config.yaml", "- a\n- b\n", "is not that of a run"),
        ("config.yaml", "schema_version: 2\nchoices:\n  norm: batch\n", "has no config: it is cut off"),
        ("config.yaml", "choices: {norm: batch\n", "config.yaml can't be read: .*line"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml can't be read"),
        ("summary.json", '{"status": "complete", "test_acc', "summary.json is cut off or damaged"),
        ("summary.json", "[1]", "is not that of a run"),
        ("summary.json", '{"status": "fine"}', "has status fine, not complete"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    path = write(tmp_path / "a")
    (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    [run] = load(tmp_path)
    with pytest.raises(Damaged, match=words):
        _ = run.config, run.status


def test_a_run_that_failed_says_why_even_with_a_damaged_message(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    (path / "error.json").write_text('{"error": "out of memory", "traceback": "line 1\\nline 2"}')
    [run] = load(tmp_path)
    assert (run.status, run.error, run.traceback) == ("failed", "out of memory", "line 1\nline 2")
    (path / "error.json").write_text('{"error": "out of me')
    [run] = load(tmp_path)
    assert (run.status, run.traceback) == ("failed", "")
    assert "error.json is cut off" in str(run.error)


def test_what_is_no_study_is_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="is a single run"):
        load(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load(tmp_path / "nowhere")


def test_a_row_per_run_and_what_sets_runs_apart_beside_every_row_of_a_table(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            write(tmp_path / f"{lr}-{seed}", END, lr=lr, seed=seed)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("a: 1")
    study = load(tmp_path)
    assert list(study.runs) == [
        "run", "norm", "lr", "seed", "status", "validation_accuracy", "test_accuracy", "train_loss", "seconds.total"
    ]  # fmt: skip
    assert len(study.runs) == 4
    assert study.runs.loc["0.2-1", ["lr", "seed", "status", "test_accuracy"]].tolist() == [0.2, 1, "complete", 0.5]
    assert {"norm.eps", "steps", "samples"} <= set(study.all_columns)
    assert study.unreadable == {"broken": f"schema_version is None, this normbench reads {SCHEMA_VERSION}"}
    assert list(study.steps)[:5] == ["run", "norm", "lr", "seed", "step"]
    assert study.steps.groupby("lr")["loss"].mean().to_dict() == pytest.approx({0.1: 0.3, 0.2: 0.3})
    assert study.measured("activations").empty  # a header alone


def test_a_target_in_a_run_folder_is_text_and_nothing_else(tmp_path: Path) -> None:
    bomb = {"_target_": "os.system", "_args_": ["touch boom"]}
    path = write(tmp_path / "a", END, model={"build": bomb, "_target_": "os.abort"})
    [run] = load(tmp_path)
    assert run.values["model.build._target_"] == "os.system"
    assert all(isinstance(value, str | int | float | None) for value in run.values.values())
    assert len(load(tmp_path).runs) == 1
    (path / "config.yaml").write_text("!!python/object/apply:os.abort []")
    assert "could not determine a constructor" in load(tmp_path).unreadable["a"]


def test_a_checkpoint_of_other_data_is_of_no_use(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "a", data_checksum="c0ffee") as folder:
        folder.start(RECORD)
        folder.write_checkpoint(b"state")
        assert folder.read_checkpoint() == b"state"
    assert Run(tmp_path / "a").record["data_checksum"] == "c0ffee"
    with RunFolder(tmp_path / "a", data_checksum="decade") as folder, pytest.raises(Damaged, match="other data"):
        folder.read_checkpoint()
