"""Several students' studies in one: what is copied, what is refused, and that nothing is written then."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from normbench.errors import UserError
from normbench.runs import SCHEMA_VERSION, Run, load, merge
from normbench.runs.files import file_seals, sha256, summary_digest


def seal(run: Path) -> Path:
    """As a run leaves its folder: `writer` leaves the seal out."""
    summary = json.loads((run / "summary.json").read_text())
    summary["seal"] = {"files": file_seals(run)}
    summary["seal"]["sha256"] = summary_digest(summary)
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.fixture
def student(tmp_path: Path, writer: Callable[..., Path]) -> Callable[..., Path]:
    """`student(3, lr=0.1)`: the study of a student with seeds 30 and 31, with two schemes."""

    def make(number: int, seeds: tuple[int, ...] = (), accuracy: float = 0.9, **options: object) -> Path:
        study = tmp_path / f"student_{number}" / "demo"
        for seed in seeds or (10 * number, 10 * number + 1):
            for norm in ("none", "batch"):
                seal(writer(study, norm=norm, seed=seed, accuracy=accuracy + seed / 1000, **options))
        return study

    return make


def listed(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_of_two_students_come_together(student: Callable[..., Path], tmp_path: Path) -> None:
    one, two, into = student(1), student(2), tmp_path / "class"
    (one / "report").mkdir()
    (next(two.iterdir()) / "folded.pt").write_bytes(b"came later")
    done = merge([one, two], into)
    assert len(done.copied) == 8
    assert not done.repeated
    study = load(into)
    assert not study.unreadable
    assert sorted(study.runs["seed"]) == [10, 10, 11, 11, 20, 20, 21, 21]
    assert study.varied == ()
    for run in study:
        source = next(folder for folder in (one, two) if (folder / run.name).exists()) / run.name
        copied, there = listed(run.folder), listed(source)
        assert copied == {name: there[name] for name in (*run.summary["seal"]["files"], "summary.json")}
    # one more student, later; and the same again changes nothing
    assert len(merge([student(3)], into).copied) == 4
    before = listed(into)
    again = merge([one, two], into)
    assert not again.copied
    assert len(again.repeated) == 8
    assert listed(into) == before


def test_the_same_seed_is_skipped_with_the_same_numbers_and_refused_with_others(
    student: Callable[..., Path], tmp_path: Path
) -> None:
    one, same, other = student(1), student(2, (10, 20)), student(3, (10,), accuracy=0.8)
    done = merge([one, same], tmp_path / "class")
    assert len(done.copied) == 6
    assert {name.split("/")[0] for name in done.repeated} == {"student_2"}
    with pytest.raises(UserError, match=r"student_3/demo/.* and student_1/demo/.* same configuration and seed 10"):
        merge([one, other], tmp_path / "else")


def _folder_linked(study: Path) -> None:
    run = next(study.iterdir())
    shutil.move(run, study.parent / "away")
    run.symlink_to(study.parent / "away")


def _file_linked(study: Path) -> None:
    table = next(study.iterdir()) / "steps.csv"
    shutil.move(table, study.parent / "steps.csv")
    table.symlink_to(study.parent / "steps.csv")


def _changed(study: Path) -> None:
    run = next(study.iterdir())
    (run / "steps.csv").write_text((run / "steps.csv").read_text().replace("0.9", "0.8"))


def _of_another_version(study: Path) -> None:
    run = next(study.iterdir())
    record = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(record | {"schema_version": SCHEMA_VERSION - 1}))
    seal(run)


def _not_over(study: Path) -> None:
    (next(study.iterdir()) / "summary.json").unlink()


def _without_seal(study: Path) -> None:
    path = next(study.iterdir()) / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in summary.items() if key != "seal"}))


def _with_a_pipe(study: Path) -> None:
    table = next(study.iterdir()) / "steps.csv"
    table.unlink()
    os.mkfifo(table)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_folder_linked, "is a link"),
        (_file_linked, "steps.csv is a link"),
        (_changed, "steps.csv was changed"),
        (_of_another_version, f"schema_version is {SCHEMA_VERSION - 1}"),
        (_not_over, r"is not over \(interrupted\)"),
        (_without_seal, "has no seal"),
        (_with_a_pipe, "is not a file"),
    ],
)
def test_what_is_not_whole_is_refused(
    damage: Callable[[Path], None], message: str, student: Callable[..., Path], tmp_path: Path
) -> None:
    one, two = student(1), student(2)
    damage(two)
    with pytest.raises(UserError, match=message) as caught:
        merge([one, two], tmp_path / "class")
    assert "student_2" in str(caught.value)
    assert not (tmp_path / "class").exists()


def test_another_configuration_is_refused_and_what_only_observes_is_not(
    student: Callable[..., Path], tmp_path: Path, refused: Callable[[list[str], str], None]
) -> None:
    one, foreign, other_data = student(1), student(2, lr=0.1), student(3, checksum="f" * 64)
    refused(
        ["merge", str(one), str(foreign)],
        "has another configuration than the runs of student_1/demo: lr=0.1, not 0.001",
    )
    refused(["merge", str(one), str(other_data)], "dataset.checksum=ffffffffffff, not c0ffee000000")
    refused(["merge", str(one), str(tmp_path)], "holds no runs")
    refused(["merge", str(one), str(one)], "named twice")
    done = merge([one, student(4, log_every=7, data_dir="/home/anna/data")], tmp_path / "class")
    assert len(done.copied) == 8


def test_a_seal_leads_nowhere_else(student: Callable[..., Path], tmp_path: Path) -> None:
    one, two = student(1), student(2)
    run = Run(next(two.iterdir()))
    (two / "secret.csv").write_text("secret")
    files = run.summary["seal"]["files"]
    files["../secret.csv"] = {"bytes": 6, "sha256": sha256(two / "secret.csv")}
    run.summary["seal"]["sha256"] = summary_digest(run.summary)
    (run.folder / "summary.json").write_text(json.dumps(run.summary))
    assert len(merge([one, two], tmp_path / "class").copied) == 8
    assert not [path for path in (tmp_path / "class").rglob("*") if "secret" in path.name]
