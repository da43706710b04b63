"""Run folders as accidents leave them: every file, damaged in every way, met by every command that reads it.

A folder is read as it was written, or left out with the reason; the same run again gives the same results again.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from normbench import load
from normbench.cli import main
from normbench.config.run_config import RunConfig
from normbench.errors import Stopped
from normbench.experiment import execute
from normbench.runs import Damaged, Run

WORDS = ["dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8", "model.hidden=[8]"]
WORDS += ["max_steps=30", "evaluations=2", "log_every=5", "instruments.snapshots=2", "instruments.probe=16"]
WORDS += ["instruments=quick"]


def _flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replace(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def damage(path: Path, other: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "deleted": lambda path, other: path.unlink(),
    "cut": lambda path, other: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path, other: path.write_bytes(b""),
    "flipped": _flip,
    "folder": _replace(lambda path: (path / "inside").mkdir(parents=True)),
    "link": _replace(lambda path: path.symlink_to(path.parent / "nowhere")),
    "pipe": _replace(lambda path: os.mkfifo(path)),
    "another": lambda path, other: shutil.copy(other, path),
}


class Case:
    """One damage to one file of a run."""

    def __init__(self, source: Path, other: Path, file: str, damage: str) -> None:
        self.source, self.other, self.file, self.damage = source, other, file, damage
        self.name = f"{source.parent.name}-{file.replace('/', '_')}-{damage}"

    def make(self, folder: Path) -> Path:
        """A copy of the run with the damage done."""
        shutil.copytree(self.source, folder)
        DAMAGES[self.damage](folder / self.file, self.other / self.file)
        return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def runs(results: Path, cell_of: Callable[..., RunConfig]) -> dict[str, RunConfig]:
    """A finished run, folded; an interrupted one; and for each another, whose files are foreign to it."""
    made = {}
    for name, word in (
        ("finished", "seed=0"),
        ("finished-other", "seed=1"),
        ("begun", "seed=2"),
        ("begun-other", "seed=3"),
    ):
        run_config = cell_of(*WORDS, word)
        made[name] = replace(run_config, config={**run_config.config, "results_dir": str(results), "study": name})
        count = itertools.count()
        if name.startswith("begun"):
            with pytest.raises(Stopped):
                execute(made[name], stop=lambda count=count: next(count) == 17)
        else:
            execute(made[name])
            assert main(["fold", str(made[name].folder)]) == 0
    return made


def cases_of(runs: dict[str, RunConfig], name: str, every: bool = True) -> Iterator[Case]:
    """Every file of a run in every damage; otherwise each file in some, and each damage to some."""
    source, other = runs[name].folder, runs[f"{name}-other"].folder
    paths = sorted(path for path in source.rglob("*") if path.is_file())
    for (i, path), (j, damage) in itertools.product(enumerate(paths), enumerate(DAMAGES)):
        changes = path.stat().st_size or damage in ("deleted", "folder", "link", "pipe")
        if changes and (every or (i + j) % 3 == 0):
            yield Case(source, other, path.relative_to(source).as_posix(), damage)


def content(run: Run) -> dict[str, Any]:
    """What a run has found, without times."""
    weights = torch.load(run.folder / "model.pt", weights_only=True)
    tables = {name: run.table(name) for name in ("steps", "epochs", *(f"measured/{one}" for one in run.instruments))}
    kept = {k: v for k, v in run.summary.items() if "seconds" not in k and k not in ("seal", "measured")}
    times = ["train_seconds", "training_ms", "evaluating_ms", "measuring_ms"]
    return {
        "weights": {name: value.tolist() for name, value in weights.items()},
        "tables": {name: table.drop(columns=times, errors="ignore").to_csv() for name, table in tables.items()},
        "summary": kept,
    }


def row_of(values: dict[str, Any]) -> dict[str, str]:
    """A row of `Study.all_columns` as text that can be compared, without what only names the run."""
    kept = {key: value for key, value in values.items() if key not in ("run", "study")}
    return {key: str(value).replace("None", "nan").removesuffix(".0") for key, value in kept.items()}


def test_tables_hold_what_was_written_or_leave_it_out(
    runs: dict[str, RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One report and one status of a study of all damaged folders."""
    study, cases = tmp_path / "all", [*cases_of(runs, "finished"), *cases_of(runs, "begun")]
    for case in cases:
        case.make(study / case.name)
    before = {name: row_of(load(one.folder.parent).all_columns.iloc[0].to_dict()) for name, one in runs.items()}
    found = load(study)
    rows = found.all_columns
    for case in cases:
        expected = before["finished" if case.source == runs["finished"].folder else "begun"]
        if case.name in found.unreadable:
            assert case.file in found.unreadable[case.name], case.name
        elif case.name in rows.index and rows.at[case.name, "status"] == expected["status"]:
            row = row_of(rows.loc[case.name].to_dict())
            own = () if (case.source.parent.name, case.file) == ("begun", "config.yaml") else expected
            for key in own:  # a run that is not over has no seal: its configuration is put right when it continues
                assert row[key] == expected[key], (case.name, key)
        else:  # of a run without its summary it is unknown that it was over; without its configuration it is no run
            assert case.file in ("summary.json", "config.yaml"), case.name
            assert case.damage in ("deleted", "link"), case.name
    damaged = {
        case.name
        for case in cases
        if case.file in ("steps.csv", "config.yaml") and case.source.parent.name == "finished"
    }
    assert damaged - set(found.unreadable) <= {"finished-config.yaml-deleted"}
    capsys.readouterr()
    for words in (["status", str(study)], ["report", str(study)]):
        assert main(words) == 0
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in found.unreadable)


ALL = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)])


@ALL
@pytest.mark.parametrize("name", ["finished", "begun"])
def test_the_same_run_again_gives_the_same_again(
    name: str, every: bool, runs: dict[str, RunConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged finished run is set aside and done again; an interrupted one continues, or starts over."""

    def in_place(place: str) -> RunConfig:
        return replace(runs[name], config={**runs[name].config, "results_dir": str(tmp_path / place)})

    whole = content(execute(in_place("whole")))
    for number, case in enumerate(cases_of(runs, name, every)):
        run_config = in_place(str(number))
        folder = case.make(run_config.folder)
        with caplog.at_level("WARNING", logger="normbench"):
            caplog.clear()
            run = execute(run_config)
        without_weights = (name, case.file) == ("finished", "model.pt") and case.damage in ("deleted", "link")
        assert without_weights or content(run) == whole, case.name
        run.check_seal(depth=2)
        assert run.record["identity"] == run_config.identity, case.name
        aside = [path.name for path in folder.parent.glob(".damaged/*")]
        ours = not case.file.startswith((".lock", "folded")) and not without_weights
        expected = name == "finished" and ours and (case.file, case.damage) != ("summary.json", "deleted")
        assert aside == [folder.name] * expected, case.name
        assert ("done again" in caplog.text) == expected, case.name


@ALL
def test_commands_on_one_run_work_with_what_was_trained_or_refuse(
    every: bool, runs: dict[str, RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: dict[str, Callable[[Path], list[str]]] = {
        "evaluate": lambda folder: ["evaluate", str(folder), "norm.statistics=ema", "--json"],
        "explain": lambda folder: ["explain", "--run", str(folder), "--json"],
        "fold": lambda folder: ["fold", str(folder)],
    }

    def numbers(command: str, folder: Path) -> Any:
        capsys.readouterr()
        code = main(commands[command](folder))
        printed = capsys.readouterr()
        if code:
            assert code == 2
            assert printed.err.startswith("normbench: error: ")
            assert len(printed.err.strip().splitlines()) <= 2
            return None
        found = {"fold": True} if command == "fold" else json.loads(printed.out)
        return found.get("evaluations") or found.get("steps") or found

    whole = {command: numbers(command, runs["finished"].folder) for command in commands}
    cases = [*cases_of(runs, "finished", every), *cases_of(runs, "begun", every)]
    for (number, case), command in itertools.product(enumerate(cases), commands):
        if every or list(commands)[number % 3] == command:
            found = numbers(command, case.make(tmp_path / case.name / command))
            works = case.source == runs["finished"].folder and case.file.startswith((".lock", "folded"))
            if command == "fold" and case.file.startswith("folded") and case.damage == "folder":
                works = False  # a file can't replace it: said in one line
            assert found == (whole[command] if works else None), (case.name, command)


# ---- what no accident does: files that are made to do harm


BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghijklmn")
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n" for a, b in itertools.pairwise("abcdefghijklmn")
)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


HOSTILE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "bomb": ("config.yaml", lambda path: path.write_text(path.read_text() + BOMB)),
    "merges": ("config.yaml", lambda path: path.write_text(path.read_text() + MERGES)),
    "loop": ("config.yaml", lambda path: path.write_text(path.read_text() + "self: &s [*s]\n")),
    "deep-yaml": ("config.yaml", lambda path: path.write_text("- " * 100_000)),
    "huge-config": ("config.yaml", _huge),
    "huge-table": ("steps.csv", _huge),
    "deep-json": ("summary.json", lambda path: path.write_text("[" * 200_000)),
    "huge-summary": ("summary.json", _huge),
    "nan": ("summary.json", lambda path: path.write_text('{"status": "complete", "test_accuracy": NaN}')),
    "seven": ("summary.json", lambda path: _change(path, test_accuracy=7.0)),
    "text": ("config.yaml", lambda path: path.write_text(path.read_text().replace("  lr: 0.001", "  lr: fast"))),
    "words": ("config.yaml", lambda path: path.write_text(path.read_text().replace("  seed: 0", "  seed: [1, 2]"))),
    "endless": ("summary.json", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
    "endless-table": ("epochs.csv", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
    "pipe-table": ("measured/activations.csv", lambda path: (path.unlink(), os.mkfifo(path))),
}


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("sealed", [True, False])
def test_hostile_files_are_named_and_nothing_hangs(
    runs: dict[str, RunConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str], sealed: bool
) -> None:
    """A seal guards against accidents alone: without it, too, a report reads what it can and names the rest."""
    study = tmp_path / "hostile"
    for name, (file, change) in {**HOSTILE, "good": ("steps.csv", lambda path: None)}.items():
        folder = study / name
        shutil.copytree(runs["finished"].folder, folder)
        if not sealed:
            _change(folder / "summary.json", seal={})
        change(folder / file)
    for words in [["status", str(study)], *([] if sealed else [["report", str(study)]])]:
        assert main(words) == 0
        assert "Traceback" not in capsys.readouterr().err
    found = load(study)
    unread_tables = set() if sealed else {"huge-table", "endless-table", "pipe-table"}  # figures leave these out
    assert set(found.unreadable) == set(HOSTILE) - unread_tables
    assert set(found.members) == {"good"} | unread_tables


def test_what_is_wrong_is_said(runs: dict[str, RunConfig], tmp_path: Path) -> None:
    shutil.copytree(runs["finished"].folder, tmp_path / "s" / "a")
    run = tmp_path / "s" / "a"
    (run / "model.pt").unlink()  # to save space
    (run / "notes.txt").write_text("another file")
    Run(run).check_seal(depth=2, identity=runs["finished"].identity)
    with pytest.raises(Damaged, match=r"summary.json is another run's"):
        Run(run).check_seal(identity=runs["begun"].identity)
    data = (run / "steps.csv").read_bytes()
    (run / "steps.csv").write_bytes(data + b"\n")
    with pytest.raises(Damaged, match=rf"steps.csv has {len(data) + 1:,} bytes, not {len(data):,} as"):
        Run(run).check_seal()
    _flip(run / "steps.csv", run)
    (run / "steps.csv").write_bytes(data.replace(b"1", b"2"))
    Run(run).check_seal()
    with pytest.raises(Damaged, match=r"steps.csv was changed after the run had ended"):
        Run(run).check_seal(depth=1)
