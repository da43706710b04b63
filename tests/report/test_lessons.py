"""Lab sheets: each notebook's cells run, in order, on little data, and two students' runs come together."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import normbench
from normbench.claims.claim import claims
from normbench.cli import main
from normbench.config.options import config_dir
from normbench.plots import figures
from normbench.report.lesson import KEY, budget, lesson, lessons

pytestmark = pytest.mark.usefixtures("own_folder")
TINY = {"dataset": "synthetic", "dataset.examples": 200, "dataset.validation": 30, "dataset.size": 8, "jobs": 1}
TINY |= {"instruments.probe": 20, "instruments.snapshots": 3, "evaluations": 3, "device": "cpu"}
HIDDEN = {"model.hidden": [[6, 5, 4]]}
SMALL = {"max_samples": 64}


def code(notebook: bytes) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]


def execute(cells: list[str], number: int, tiny: dict[str, Any]) -> dict[str, Any]:
    """The cells in one namespace, of a student with one seed and a tiny budget; what a notebook would show is shown."""
    space: dict[str, Any] = {}
    for text in cells:
        parsed = ast.parse(re.sub("^NUMBER = 1 ", f"NUMBER = {number} ", text, flags=re.MULTILINE))
        last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
        exec(compile(parsed, "cell", "exec"), space)
        if "BUDGET =" in text:
            space |= {"DATA": TINY, "BUDGET": {**TINY, **tiny}, "SEEDS": space.get("SEEDS", range(1))[:1]}
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), space)
            ways = ("_repr_html_", "_repr_png_", "__repr__")
            assert any(getattr(shown, way)() for way in ways if hasattr(shown, way))
    return space


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has few figures, which take the longest."""
    kept = ("batch_sizes", "lr_sensitivity", "ribbons", "shift", "learning_curves")
    monkeypatch.setattr(figures, "FIGURES", [spec for spec in figures.FIGURES if spec.name in kept])


@pytest.mark.usefixtures("few")
def test_two_students_do_the_lesson_on_small_batches(capsys: pytest.CaptureFixture[str]) -> None:
    cells = code(lesson("small_batch_fails")["small_batch_fails.ipynb"])
    seeds = [execute(cells, number, {**HIDDEN, **SMALL})["SEEDS"][0] for number in (1, 2)]
    assert seeds == [1003, 1006]
    assert Path("student_1.zip").exists()
    folders = [f"student_{number}/small_batches" for number in (1, 2)]
    assert main(["merge", *folders]) == 0
    printed = capsys.readouterr().out
    together = normbench.load("merged/small_batches")
    assert len(together) == 36
    assert sorted(set(together.runs["seed"])) == seeds
    assert "n = 2" in printed
    assert "small_batch_fails" in Path("merged/small_batches/report/report.html").read_text()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "tiny"),
    [
        ("inputs_shift", SMALL | HIDDEN),
        ("fewer_steps_2015", {"max_steps": 4} | HIDDEN),
        pytest.param("quickstart", SMALL, marks=pytest.mark.full),
        pytest.param("high_lr", SMALL | HIDDEN, marks=pytest.mark.full),
    ],
)
def test_the_cells_of_a_lesson_run_in_order(
    name: str, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    space = execute(code(lesson(name)[f"{name}.ipynb"]), 1, tiny)
    assert len(space["study"]) >= 2
    assert capsys.readouterr().out == ""


def test_every_claim_that_has_a_study_is_a_lesson() -> None:
    figures_of_reports = {spec.name for spec in figures.FIGURES}
    able = [claim for claim in claims() if claim.study]
    assert len(able) > 30
    assert set(lessons()) - {"quickstart"} < {claim.id for claim in able}
    for claim in able:
        made = lesson(claim.id)
        assert list(made) == [f"{claim.id}.ipynb", f"{claim.id}.html", f"{claim.id}-key.html"]
        for cell in code(made[f"{claim.id}.ipynb"]):
            compile(cell, claim.id, "exec")
        assert claim.figure in figures_of_reports
        assert set(budget(claim.study)) <= {"max_samples", "max_steps", "epochs"}


def test_the_sheet_asks_and_only_the_key_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = {name: data.decode() for name, data in lesson("small_batches").items()}  # by the name of the study
    assert list(made) == [f"small_batch_fails{end}" for end in (".ipynb", ".html", "-key.html")]
    notebook, sheet, key = made.values()
    for text in (notebook, sheet):
        assert "Your prediction, before you run anything" in text
        assert "batch size 8?" in text
        assert "55.3" not in text
    assert "supported" not in notebook
    for measured in ("55.3 ± 14.2", "-45.5 points (-58 to -33, n = 5)", "data:image/png;base64,"):
        assert measured in key
    assert KEY not in notebook + sheet + key
    for text in (sheet, key):
        assert not re.search('(src|href)=(?!"data:)', text)
    monkeypatch.setattr("normbench.report.lesson.config_dir", lambda: copied)
    copied = tmp_path / "configs"  # as in an installed package: there are no results beside it
    copied.symlink_to(config_dir())
    assert (
        "normbench run experiment=small_batches" in lesson("small_batch_fails")["small_batch_fails-key.html"].decode()
    )


def test_a_notebook_is_one() -> None:
    import nbformat

    for name in lessons():
        made = nbformat.reads(lesson(name)[f"{name}.ipynb"].decode(), as_version=4)
        nbformat.validate(made)
        assert [cell for cell in made.cells if cell.get("attachments")] or name == "quickstart"


def test_the_quickstart_that_is_read_on_github_is_up_to_date() -> None:
    there = config_dir() / "lessons" / "quickstart.ipynb"
    assert there.read_bytes() == lesson("quickstart")["quickstart.ipynb"], (
        "normbench lesson quickstart --output configs/lessons"
    )


def test_the_command_writes_where_nobody_has_worked(
    capsys: pytest.CaptureFixture[str], refused: Callable[[list[str], str], None]
) -> None:
    assert main(["lesson"]) == 0
    listed = capsys.readouterr().out
    assert listed.index("inputs_shift") < listed.index("made from the claim") < listed.index("high_lr")
    assert "folds_and_is_faster" not in listed
    for _ in range(2):
        assert main(["lesson", "demo", "--output", "here"]) == 0
    assert sorted(path.name for path in Path("here").iterdir()) == ["demo-key.html", "demo.html", "demo.ipynb"]
    capsys.readouterr()
    notebook = Path("here/demo.ipynb")
    notebook.write_text(notebook.read_text().replace("______", "42"))
    refused(["lesson", "demo", "--output", "here"], "somebody has worked in it")
    assert "42" in notebook.read_text()
    refused(["lesson", "bogus"], "there is no lesson bogus")
    refused(["lesson", "folds_and_is_faster"], "normbench claims --run folds_and_is_faster")
    assert not Path("lessons").exists()
