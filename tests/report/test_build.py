from __future__ import annotations

import base64
import csv
import hashlib
import html
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from normbench.plots.drawing import Figure
from normbench.plots.figures import FIGURES
from normbench.report.build import Report, build
from normbench.report.page import HEAVY, picture

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
        if self.open and self.open[-1] not in ("style", "script"):
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
    drawn = [figure.name for figure in report.content.figures if figure.svg]
    pictures = {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "png", "pdf")}
    tables = {f"tables/{table.name}.csv" for table in report.content.others if table.rows} | {"tables/runs.csv"}
    assert drawn
    assert names == {"report.html", "leaderboard.csv", "leaderboard.md", "tables.md", "files.txt"} | tables | pictures
    assert (folder / "files.txt").read_text().splitlines() == sorted(names)
    assert names == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert report.page.stat().st_size < 2_000_000


def test_the_page_stands_alone_and_escapes_names(report: Report) -> None:
    text = report.page.read_text()
    page = Page(text)
    assert "b" not in page.elements
    assert "<b>x" in page.text  # seen as it is written
    assert not page.elements & {"iframe", "object", "link", "base"}
    assert text.count("<script") == 1
    outside = [link for link in page.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert set(outside) == {path.relative_to(report.page.parent).as_posix() for path in report.files} - {
        "report.html",
        "files.txt",
    }
    assert set(re.findall(r"https?://[^\"' )<]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",  # names, not addresses
    }
    assert "url(" not in text.replace("url(#", "")
    drawn = [figure for figure in report.content.figures if figure.svg]
    assert text.count('<div class="paper"') == text.count("<svg xmlns") + text.count("<img") == len(drawn)
    assert len(report.content.figures) >= sum(bool(spec.missing) for spec in FIGURES)


def test_the_browser_is_told_to_run_our_script_alone(report: Report) -> None:
    text = report.page.read_text()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert script
    assert policy
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert html.unescape(policy[1]).split("; ") == [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]


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


def test_every_run_has_its_row_and_command(report: Report) -> None:
    rows = list(csv.DictReader((report.page.parent / "tables" / "runs.csv").read_text().splitlines()))
    assert len(rows) == 10
    by_name = {row["run"]: row for row in rows}
    row = by_name["mlp-none-mnist-batch_size64-seed1"]
    assert [row[key] for key in ("scheme", "batch_size", "seed", "status", "test_accuracy", "seconds")] == [
        "none", "64", "1", "complete", "0.91", "13.0"
    ]  # fmt: skip
    assert row["command"] == "normbench run norm=none model=mlp batch_size=64 seed=1 study=first"
    text = Page(report.page.read_text()).text
    assert all(row["command"] in text for row in rows)


def test_a_failed_run_shows_where_it_failed_once(study: Path, add: Add) -> None:
    for seed in range(3):
        path = add(norm="layer", status="failed", seed=seed)
        (path / "error.json").write_text('{"error": "it broke", "traceback": "File <x>, line 1"}')
    add(norm="none")
    text = build(study).page.read_text()
    assert text.count("File &lt;x&gt;, line 1") == 1
    assert "and 2 more" in text
    assert text.count("it broke") >= 3


def test_a_heavy_figure_is_shown_as_pixels() -> None:
    light, heavy = (Figure("a", "A", "b", b"<svg>" + b" " * size, b"png", b"pdf") for size in (10, HEAVY))
    assert picture(light) == light.svg.decode()
    assert picture(heavy) == '<img alt="" src="data:image/png;base64,cG5n">'


def test_the_same_runs_give_the_same_bytes(messy: Path) -> None:
    first = {path: path.read_bytes() for path in build(messy).files}
    shutil.rmtree(messy / "report")
    assert first == {path: path.read_bytes() for path in build(messy).files}


def test_a_figure_of_an_earlier_build_goes_and_what_is_not_ours_stays(messy: Path) -> None:
    build(messy)
    foreign = [messy / "report" / name for name in ("paper.png", "figures/mine.png", "tables/mine.csv", "notes.md")]
    for path in foreign:
        path.write_text("mine")
    with (messy / "report" / "files.txt").open("a") as file:
        file.write("../keep.txt\n/etc/hostname\nfigures/../../keep.txt\n")
    (messy / "keep.txt").write_text("mine")
    for path in messy.glob("*batch_size64*"):
        shutil.rmtree(path)
    names = set(build(messy).files)
    assert messy / "report" / "figures" / "batch_sizes.png" not in names
    assert {path for path in (messy / "report").rglob("*") if path.is_file()} == names | set(foreign)
    assert (messy / "keep.txt").exists()


def test_one_run_is_enough(study: Path, add: Add) -> None:
    add(norm="batch", dataset="synthetic")
    page = Page(build(study).page.read_text())
    assert "90.00 (n = 1)" in page.text
    assert "1 run: 1 scheme, 1 setting, 1 seed. 1 complete." in page.text
    assert "SYNTHETIC DATA" in page.text
    assert "Leaderboard, synthetic data" in page.text


def test_a_report_never_imports_torch(messy: Path) -> None:
    code = (
        "import sys, normbench.report as r, pathlib; before = 'matplotlib' in sys.modules; "
        "r.build(pathlib.Path(sys.argv[1])); "
        "print('torch' in sys.modules, 'hydra' in sys.modules, before, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(messy)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False", "True"]
