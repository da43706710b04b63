from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from normbench.report import Report, build
from normbench.report.figures import FIGURES

Add = Callable[..., Path]
BAND = [(-2.0, -1.0, 0.0, 1.0, 2.0), (-3.0, -1.5, 0.0, 1.5, 3.0)]
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Tags must close in order; collects attributes that fetch something, elements, and the text outside of style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def write_messy(study: Path, add: Add) -> Path:
    for seed in (0, 1):
        for batch_size in (4, 64):
            layers = {"hidden1/linear": BAND}
            add(norm="none", batch_size=batch_size, seed=seed, accuracy=0.9 + seed / 100, layers=layers)
        add(norm="<b>x", batch_size=4, seed=seed, accuracy=0.9 + seed / 100, layers={"hidden1/linear": BAND})
    add(norm="selu", batch_size=4, status="diverged", curve=(0.1, 0.2))
    add(norm="batch", batch_size=4, status="unsupported")
    add(norm="layer", batch_size=4, status="failed")
    add(norm="weight", batch_size=4, status="interrupted")
    return study


@pytest.fixture
def messy(study: Path, add: Add) -> Path:
    return write_messy(study, add)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, writer: Callable[..., Path]) -> Report:
    """Built once, only looked at."""
    study = tmp_path_factory.mktemp("results") / "first"
    return build(write_messy(study, partial(writer, study)))


def test_files_and_page(report: Report) -> None:
    folder = report.page.parent
    assert (folder.name, report.page.name) == ("report", "report.html")
    names = {path.relative_to(folder).as_posix() for path in report.files}
    pictures = {path.stem for path in (folder / "figures").iterdir()}
    assert {"learning_curves", "batch_sizes", "forest", "cost", "ribbons"} <= pictures
    assert pictures <= {module.NAME for module in FIGURES}  # those that the study has data for
    files = {f"figures/{name}.{s}" for name in pictures for s in ("svg", "png")}
    assert names == {"report.html", "leaderboard.csv", "leaderboard.md"} | files
    assert names == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert sum(path.stat().st_size for path in report.files) < 1_500_000


def test_the_page_stands_alone_and_escapes_names(report: Report) -> None:
    text = report.page.read_text()
    page = Page(text)
    assert "b" not in page.elements
    assert "<b>x" in page.text  # seen as it is written
    assert not page.elements & {"script", "iframe", "object", "link", "img"}
    outside = [link for link in page.links if not link.startswith("#")]
    assert outside == ["leaderboard.csv", "leaderboard.md"]
    assert set(re.findall(r"https?://[^\"' )<]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",  # names, not addresses
    }
    assert "url(" not in text.replace("url(#", "")
    drawn = [path for path in report.files if path.suffix == ".svg"]
    assert text.count("<svg xmlns") == len(drawn) < len(FIGURES)
    assert text.count("Not drawn: ") == len(FIGURES) - len(drawn)


def test_the_page_says_what_happened(report: Report) -> None:
    page = Page(report.page.read_text())
    for words in (
        "10 runs: 6 schemes, 2 settings, 2 seeds. 6 complete, 1 diverged, 1 failed, 1 interrupted, 1 unsupported.",
        "loss no longer finite at step 350",
        "BatchNorm needs two values per feature to train.",
        "out of memory",
        "90.50 ± 6.35",
        "torch 2.6.0",
        "abc1234",
        "mnist: 55000 train, 5000 validation, 10000 test images",
        "batch size 64",
    ):
        assert words in page.text, words


def test_a_crossing_is_one_command(study: Path, add: Add) -> None:
    for norm in ("none", "batch"):
        for seed in (0, 1):
            add(norm=norm, batch_size=4, **({"seed": seed} if seed else {}))  # a default is left out of the command
    page = Page(build(study).page.read_text())
    assert "normbench run -m norm=batch,none model=mlp batch_size=4 study=first seed=0,1\n" in page.text


def test_other_studies_are_one_command_per_run(report: Report) -> None:
    page = Page(report.page.read_text())
    lines = [line for line in page.text.splitlines() if line.startswith("normbench run")]
    assert len(lines) == 10
    assert ["normbench", "run", "norm=<b>x", "model=mlp", "batch_size=4", "seed=1", "study=first"] in map(
        shlex.split, lines
    )


def test_the_same_runs_give_the_same_bytes(messy: Path) -> None:
    first = {path: path.read_bytes() for path in build(messy).files}
    shutil.rmtree(messy / "report")
    assert first == {path: path.read_bytes() for path in build(messy).files}


def test_a_figure_of_an_earlier_build_goes(messy: Path) -> None:
    build(messy)
    for path in messy.glob("*batch_size64*"):
        shutil.rmtree(path)
    names = {path.name for path in build(messy).files}
    assert "batch_sizes.png" not in names
    assert {path.name for path in (messy / "report" / "figures").iterdir()} <= names


def test_one_run_is_enough(study: Path, add: Add) -> None:
    add(norm="batch", dataset="synthetic")
    page = Page(build(study).page.read_text())
    assert "90.00 (n = 1)" in page.text
    assert "1 run: 1 scheme, 1 setting, 1 seed. 1 complete." in page.text
    assert page.text.count("SYNTHETIC DATA") == 2
    assert "Leaderboard, synthetic data" in page.text


def test_half_written_runs_do_no_harm(study: Path, add: Add) -> None:
    add(norm="none", layers={"a/linear": BAND})
    for norm, tables in {"batch": "", "layer": "step,sam", "selu": "step,samples\n1,"}.items():
        for status in ("interrupted", "complete"):
            path = add(norm=norm, status=status, seed=int(status == "complete"))
            for name in ("steps", "epochs", "measured/activations"):
                (path / f"{name}.csv").write_text(tables)
    gone = add(norm="weight")
    for name in ("steps", "epochs", "measured/activations"):
        (gone / f"{name}.csv").unlink()
    (study / "no-run").mkdir()
    (study / "notes.txt").write_text("mine")
    page = Page(build(study).page.read_text())
    assert "could not be drawn" not in page.text.lower()
    assert "3 interrupted" in page.text
    assert build(study).files  # the report's own folder is no run


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no runs"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_never_imports_torch(messy: Path) -> None:
    code = (
        "import sys, normbench.report as r, pathlib; before = 'matplotlib' in sys.modules; "
        "r.build(pathlib.Path(sys.argv[1])); "
        "print('torch' in sys.modules, 'hydra' in sys.modules, before, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(messy)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False", "True"]
