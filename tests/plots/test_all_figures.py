"""What holds for every figure of the list."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.figure import Figure as Canvas

from normbench.analysis.groups import read
from normbench.plots import lr_batch, ribbons
from normbench.plots.drawing import Figure, finish, look, panels
from normbench.plots.figures import FIGURES
from normbench.runs import load
from tests.study_files import measure_everything

Add = Callable[..., Path]
SUPPLIED_BY = {  # figures that need more than a plain run: what the note without data must name
    "ribbons": "activations",
    "shift": "shift",
    "train_test_shift": "train_test_shift",
    "batch_noise": "batch_noise",
    "running_statistics": "statistics",
    "depth": "gradients",
    "landscape": "landscape",
    "time_steps": "time_steps",
    "learning_curves": "evaluations",
    "lr_sensitivity": "lr=",
    "lr_batch": "two learning rates",
    "batch_sizes": "batch size",
    "along_option": "nothing was varied",
    "forest": "complete run",
    "cost": "complete",
}
by_name = pytest.mark.parametrize("module", FIGURES, ids=lambda module: module.NAME)


def write(add: Add, norms: tuple[str, ...] = ("none", "batch")) -> None:
    for (i, norm), lr, size, seed in product(enumerate(norms, 1), (0.1, 1.0), (4, 64), (0, 1)):
        path = add(
            norm=norm, lr=lr, batch_size=size, seed=seed, accuracy=0.9 + seed / 100, options={"model.dropout": 0.0}
        )
        measure_everything(path, scale=i + seed / 10)
    measure_everything(add(norm=norms[0], lr=0.1, batch_size=4, seed=0, options={"model.dropout": 0.5}))


def draw(module: ModuleType, study: Path) -> Figure:
    with look():
        return module.draw(read(load(study)))[0]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, writer: Callable[..., Path]) -> Path:
    study = tmp_path_factory.mktemp("results") / "measured"
    write(lambda **settings: writer(study, **settings))
    return study


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, writer: Callable[..., Path]) -> Path:
    study = tmp_path_factory.mktemp("results") / "<i>$a_$"
    write(lambda **settings: writer(study, **settings), ("<b>x & $y_$", "none"))
    for path in study.glob("*/measured/*.csv"):
        path.write_text(path.read_text().replace("first", "<i>$h_1$"))
    return study


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid out and drawn, which is where names and numbers can fail, but not made into three files."""

    def finish(name: str, title: str, caption: str, canvas: Canvas, synthetic: bool) -> Figure:
        canvas.draw_without_rendering()
        return Figure(name, title, caption, b"x")

    for module in FIGURES:
        monkeypatch.setattr(module, "finish", finish)


@by_name
def test_it_is_drawn(module: ModuleType, measured: Path) -> None:
    figure = draw(module, measured)
    assert "Not drawn" not in figure.caption
    assert figure.svg.startswith(b"<svg")
    assert figure.png.startswith(b"\x89PNG")
    assert figure.pdf.startswith(b"%PDF")
    assert b"CreationDate" not in figure.pdf
    assert len(figure.svg) < 300_000


@pytest.mark.parametrize("module", [lr_batch, ribbons], ids=lambda module: module.NAME)
def test_the_same_runs_give_the_same_bytes(module: ModuleType, measured: Path) -> None:
    assert draw(module, measured) == draw(module, measured)


@by_name
def test_without_data_it_names_what_supplies_them(module: ModuleType, study: Path, add: Add) -> None:
    add(norm="batch", status="interrupted", curve=())
    figure = draw(module, study)
    assert not figure.svg + figure.png + figure.pdf
    assert figure.caption.startswith("Not drawn: ")
    assert SUPPLIED_BY[module.NAME] in figure.caption


@pytest.mark.usefixtures("quick")
@by_name
def test_names_of_users_are_only_text(module: ModuleType, hostile: Path) -> None:
    """A dollar sign, which starts a formula in matplotlib, and markup."""
    assert draw(module, hostile)


@pytest.mark.usefixtures("quick")
@by_name
def test_half_written_tables_do_no_harm(module: ModuleType, study: Path, add: Add) -> None:
    """Columns missing, rows torn, words where numbers should be, infinite values: of one run; the others are drawn."""
    write(add, ("none",))
    for i, path in enumerate(sorted(study.glob("*/measured/*.csv"))):
        text = path.read_text()
        damaged = (
            text.split("\n")[0] + "\n",
            text[: len(text) // 2],
            text.replace(",0.", ",inf"),
            text.replace("0", "x"),
        )
        path.write_text(damaged[i % 4])
    assert isinstance(draw(module, study), Figure)


def test_the_synthetic_mark_and_empty_panels_are_saved() -> None:
    with look():
        canvas, axes = panels(1, 2, 2, 2)
        axes[0][1].set_visible(False)
        figure = finish("name", "title", "caption", canvas, synthetic=True)
    assert figure.pdf
    assert figure.svg


@pytest.mark.usefixtures("quick")
def test_reading_is_once_per_table(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from normbench.runs import Run

    seen: list[tuple[str, str]] = []
    table = Run.table
    monkeypatch.setattr(Run, "table", lambda run, name: seen.append((run.name, name)) or table(run, name))
    groups = read(load(measured))
    with look():
        for module in FIGURES:
            module.draw(groups)
    assert len(seen) == len(set(seen))
