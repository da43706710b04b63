"""Studies that figures are drawn of: written once, only looked at."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from normbench.analysis.groups import read
from normbench.plots import facets, inside, results
from normbench.plots.drawing import look
from normbench.plots.figures import FIGURES
from normbench.plots.view import Drawn, View
from normbench.runs import load
from tests.study_files import measure_everything, write_run

SPECS = {spec.name: spec for spec in FIGURES}


def view_of(study: Path) -> View:
    return View(read(load(study)))


def everything(study: Path, norms: tuple[str, ...] = ("none", "batch"), seeds: int = 2) -> Path:
    """Two schemes, learning rates and batch sizes, and an option that varies, with rows of every instrument."""
    for (i, norm), lr, size, seed in product(enumerate(norms, 1), (0.1, 1.0), (4, 64), range(seeds)):
        accuracy = 0.9 + seed / 100 - (0.2 * i if size == 4 else 0) - (0.1 if lr == 1 else 0)
        path = write_run(study, norm=norm, lr=lr, batch_size=size, seed=seed, accuracy=accuracy,
                         options={"model.dropout": 0.0})  # fmt: skip
        measure_everything(path, scale=i + seed / 10)
    measure_everything(write_run(study, norm=norms[0], lr=0.1, batch_size=4, options={"model.dropout": 0.5}))
    return study


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return everything(tmp_path_factory.mktemp("results") / "measured")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names with markup and a dollar sign, which starts a formula in matplotlib."""
    study = everything(tmp_path_factory.mktemp("results") / "<i>$a_$", ("<b>x & $y_$", "none"), seeds=1)
    for path in study.glob("*/measured/*.csv"):
        path.write_text(path.read_text().replace("first", "<i>$h_1$"))
    return study


@pytest.fixture(scope="session")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Columns missing, rows torn, words where numbers should be, infinite values: of one run; the others are whole."""
    study = everything(tmp_path_factory.mktemp("results") / "torn", ("none",))
    for i, path in enumerate(sorted(study.glob("*/measured/*.csv"))):
        text = path.read_text()
        damaged = (text.split("\n")[0] + "\n", text[: len(text) // 2], text.replace(",0.", ",inf"),
                   text.replace("0", "x"))  # fmt: skip
        path.write_text(damaged[i % 4])
    return study


@pytest.fixture(scope="session")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without instruments: runs that diverged or are unsupported, a category, an option that is null in some."""
    study = tmp_path_factory.mktemp("results") / "messy"
    for seed, size in product((0, 1, 2), (2, 64)):
        write_run(study, norm="none", batch_size=size, seed=seed, accuracy=0.7 + seed / 10, clip_norm=None)
        options = {"norm.placement": "after"}
        write_run(study, norm="batch", batch_size=size, seed=seed, status="diverged", curve=(0.1, 0.5, 0.2),
                  clip_norm=None, options=options)  # fmt: skip
        write_run(study, norm="layer", batch_size=size, seed=seed, accuracy=0.9, clip_norm=1.0)
        write_run(study, norm="none", batch_size=size, seed=seed, accuracy=0.8, clip_norm=1.0)
    write_run(study, norm="batch", batch_size=1, status="unsupported", clip_norm=None)
    return study


@pytest.fixture
def draw() -> Callable[[str, Path], Drawn | None]:
    """`draw("shift", study)`: one figure, before it is saved."""

    def one(name: str, study: Path) -> Drawn | None:
        with look():
            return SPECS[name].draw(view_of(study))

    return one


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], pd.DataFrame]:
    """`tidy("shift", study)`: the frame that a figure is drawn from."""
    kept: list[pd.DataFrame] = []

    def keep(data: pd.DataFrame, *words: Any, **options: Any) -> Any:
        kept.append(data)
        return facets.facets(data, *words, **options)

    for module in (inside, results):
        monkeypatch.setattr(module, "facets", keep)

    def data(name: str, study: Path) -> pd.DataFrame:
        with look():
            assert SPECS[name].draw(view_of(study))
        return kept[-1]

    return data
