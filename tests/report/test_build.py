from __future__ import annotations

import base64
import csv
import errno
import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from normbench.analysis.groups import read
from normbench.plots import figures
from normbench.plots.drawing import Figure
from normbench.plots.figures import FIGURES
from normbench.report.build import Report, build
from normbench.report.page import HEAVY, picture
from normbench.report.page_tables import glance
from normbench.runs import load

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
    pictures = {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "png")}
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
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/json" id="explorer-data">', "<script>"]
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
    assert text.count('<div class="paper"') == text.count("<svg fill=") + text.count("<img") == len(drawn)
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


def test_accuracies_at_a_glance_are_at_each_lr_or_at_each_schemes_best(study: Path, add: Add) -> None:
    for norm, at in (("none", {0.01: 0.7, 0.1: 0.8, 1.0: 0.6}), ("batch", {0.01: 0.6, 0.1: 0.7, 1.0: 0.9})):
        for lr, accuracy in at.items():
            add(norm=norm, lr=lr, batch_size=4, accuracy=accuracy)
    found = glance(read(load(study)))
    assert found is not None
    assert (found["columns"], found["how"]) == (["lr 0.01", "lr 0.1", "lr 1"], "")
    assert [[item.text for item in items] for _, items in found["lines"]] == [
        ["70.00", "80.00", "60.00"],
        ["60.00", "70.00", "90.00"],
    ]
    for lr in (0.01, 0.1, 1.0):
        add(norm="none", lr=lr, batch_size=64, accuracy=0.5)
    add(norm="batch", lr=0.1, batch_size=64, status="diverged")
    found = glance(read(load(study)))
    assert found is not None
    assert (found["columns"], found["how"]) == (["batch size 4", "batch size 64"], ", each scheme at its own best lr")
    assert [[item.text for item in items] for _, items in found["lines"]] == [["80.00", "50.00"], ["90.00", "diverged"]]


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


@pytest.mark.usefixtures("few")
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


@pytest.mark.usefixtures("few")
def test_a_pdf_is_written_and_linked_to_where_it_is_asked_for(messy: Path) -> None:
    asked, without = build(messy, pdf=True), build(messy)
    pictures = {path.with_suffix(".pdf") for path in without.files if path.suffix == ".png"}
    assert pictures == {path for path in asked.files if path.suffix == ".pdf"}
    assert not any(path.exists() for path in pictures)
    assert ".pdf" not in without.page.read_text()


@pytest.mark.usefixtures("few")
def test_the_same_runs_give_the_same_bytes_and_what_is_not_ours_stays(messy: Path) -> None:
    first = {path: path.read_bytes() for path in build(messy).files}
    shutil.rmtree(messy / "report")
    assert first == {path: path.read_bytes() for path in build(messy).files}
    foreign = [messy / "report" / name for name in ("paper.png", "figures/my paper.png", "tables/mine.txt", "notes.md")]
    for path in foreign:
        path.write_text("mine")
    names = "".join(f"{path.relative_to(messy / 'report')}\n" for path in foreign)
    with (messy / "report" / "files.txt").open("a") as file:
        file.write(f"{names}../keep.txt\n/etc/hostname\nfigures/../../keep.txt\n\xff\n")
    (messy / "keep.txt").write_text("mine")
    for path in messy.glob("*batch_size64*"):
        shutil.rmtree(path)
    files = set(build(messy).files)
    assert messy / "report" / "figures" / "batch_sizes.png" not in files, "of an earlier build"
    assert {path for path in (messy / "report").rglob("*") if path.is_file()} == files | set(foreign)
    assert (messy / "keep.txt").exists()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("part", ["", "tables", "figures"])
def test_nothing_is_written_or_removed_through_a_link(study: Path, add: Add, tmp_path: Path, part: str) -> None:
    add(norm="none")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "runs.csv").write_text("mine")
    (outside / "leaderboard.csv").write_text("mine")
    place = study / "report" / part
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside)
    with pytest.raises(OSError, match="is a link"):
        build(study)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        "runs.csv": "mine",
        "leaderboard.csv": "mine",
    }


@pytest.mark.usefixtures("few")
def test_links_to_files_are_replaced_or_left_but_never_followed(study: Path, add: Add, tmp_path: Path) -> None:
    add(norm="none")
    mine, report = tmp_path / "mine.csv", study / "report"
    mine.write_text("mine")
    (report / "tables").mkdir(parents=True)
    for name in ("leaderboard.csv", "tables/old.csv"):
        (report / name).symlink_to(mine)
    (report / "files.txt").write_text("tables/old.csv\nleaderboard.csv\n")
    build(study)
    assert mine.read_text() == "mine"
    assert not (report / "leaderboard.csv").is_symlink()
    assert (report / "tables" / "old.csv").is_symlink()


@pytest.mark.usefixtures("few")
def test_a_full_disk_leaves_the_last_page(study: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add(norm="none")
    page = build(study).page
    before, fsync, calls = page.read_bytes(), os.fsync, []
    add(norm="batch")

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        build(study)
    assert page.read_bytes() == before
    assert not list(page.parent.rglob("*.tmp"))


@pytest.mark.usefixtures("few")
def test_texts_are_no_formulas_in_a_spreadsheet_and_numbers_stay_numbers(study: Path, add: Add) -> None:
    for norm, accuracy in (("none", 0.9), ("=1+cmd|x", 0.8), ("-0.5", 0.7), ("@a", 0.6), (" +a", 0.5)):
        add(norm=norm, accuracy=accuracy, seed=0)
        add(norm=norm, accuracy=accuracy + 0.01, seed=1)
    folder = build(study).page.parent
    rows = list(csv.DictReader((folder / "tables" / "comparisons.csv").read_text().splitlines()))
    assert {row["scheme"] for row in rows} == {"'=1+cmd|x", "-0.5", "'@a", "' +a"}
    assert {round(float(row["difference"]), 3) for row in rows} == {-0.1, -0.2, -0.3, -0.4}
    for path in folder.rglob("*.csv"):
        cells = [cell for row in csv.reader(path.read_text().splitlines()) for cell in row]
        assert not [cell for cell in cells if cell.lstrip()[:1] in "=+@" and cell.strip()], path


@pytest.mark.usefixtures("few")
def test_one_run_is_enough(study: Path, add: Add) -> None:
    add(norm="batch", dataset="synthetic")
    page = Page(build(study).page.read_text())
    assert "90.00 (n = 1)" in page.text
    assert "1 run: 1 scheme, 1 setting, 1 seed. 1 complete." in page.text
    assert "SYNTHETIC DATA" in page.text
    assert "Leaderboard, synthetic data" in page.text


def test_the_command_imports_no_torch_and_needs_neither_a_window_system_nor_standard_output(
    study: Path, add: Add
) -> None:
    add(norm="none")
    code = (
        "import sys, os; from normbench.cli import main; before = 'matplotlib' in sys.modules; "
        "code = main(['report', sys.argv[1]]); "
        "print(code, 'torch' in sys.modules, 'hydra' in sys.modules, before, 'matplotlib' in sys.modules, "
        "file=sys.stderr)"
    )
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code, str(study)], stdout=full, stderr=subprocess.PIPE, text=True,
                              env=environment, check=True)  # fmt: skip
    said, found = done.stderr.splitlines()
    assert "standard output can't be written (No space left on device), the report is built: " in said
    assert found.split() == ["0", "False", "False", "False", "True"]
    assert (study / "report" / "report.html").exists()


def test_another_study_is_drawn_beside_and_changes_no_number(
    study: Path, tmp_path: Path, writer: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[list[str], str], None],
) -> None:  # fmt: skip
    """Its runs have the names of ours; it has a scheme more, and its schemes are further apart."""
    monkeypatch.setattr(
        figures, "FIGURES", [spec for spec in figures.FIGURES if spec.name in ("batch_sizes", "ribbons")]
    )
    other = tmp_path / "then" / "first"
    for folder, schemes, low in ((study, ("none", "batch"), 0.8), (other, ("none", "batch", "rms"), 0.3)):
        for norm in schemes:
            for batch_size in (4, 64):
                for seed in (0, 1):
                    accuracy = low if norm == "batch" else 0.9
                    layers = {"hidden1/linear": BAND}
                    writer(folder, norm=norm, batch_size=batch_size, seed=seed, accuracy=accuracy, layers=layers)
    alone = {path.relative_to(study): path.read_bytes() for path in build(study).files}
    built = build(study, beside=other)
    beside = {path.relative_to(study): path.read_bytes() for path in built.files}
    changed = {path.as_posix() for path in beside if beside[path] != alone[path]}
    figures_of = {f"report/figures/{name}.{kind}" for name in ("batch_sizes", "ribbons") for kind in ("svg", "png")}
    assert changed == {"report/report.html", *figures_of}
    drawn = built.page.with_name("figures")
    for words in ("study results/first", "study then/first", "rms"):
        assert words in (drawn / "batch_sizes.svg").read_text()
    assert "study results/first" in (drawn / "ribbons.svg").read_text()  # of one setting: ours, not the furthest apart
    page = built.page.read_text()
    assert "also show study then/first (12 runs)" in page
    assert f"--beside {other}" in page
    for path, words in ((tmp_path / "nowhere", "is no folder"), (study, "is named twice")):
        refused(["report", str(study), "--beside", str(path)], words)
    assert {path.relative_to(study): path.read_bytes() for path in built.files} == beside
