"""A report of some runs of a study, and the command line that asks for it."""

from __future__ import annotations

import shutil
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.selection import ReportError, format_filter, parse, select
from normbench.cli import main
from normbench.commands.report import _open
from normbench.report.build import build
from normbench.runs import load

Add = Callable[..., Path]


@pytest.fixture
def four(study: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> Path:
    for norm in ("none", "batch"):
        for lr in (0.1, 0.01):
            add(norm=norm, lr=lr, batch_size=4, options={"model.hidden": [300, 300]})
    monkeypatch.chdir(study.parent.parent)
    return Path("results") / study.name


def chosen(study: Path, *words: str) -> list[str]:
    return [f"{run.choices['norm']} {run.config['lr']}" for run in select(load(study), parse(words))]


def test_words_become_a_filter() -> None:
    assert parse(["norm=batch,layer", "batch_size=4"]) == {"norm": ("batch", "layer"), "batch_size": ("4",)}
    assert parse(["model.hidden=[300,300],[100]"]) == {"model.hidden": ("[300,300]", "[100]")}
    assert parse(["norm=a", "norm=b"]) == {"norm": ("a", "b")}
    assert format_filter(parse(["norm=a,b", "lr=1"])) == "norm=a,b lr=1"
    for word in ("norm", "norm=", "=batch", "results/demo"):
        with pytest.raises(ReportError, match="a filter is written key=value"):
            parse([word])


def test_runs_are_chosen_by_any_value(four: Path) -> None:
    assert chosen(four) == ["batch 0.01", "batch 0.1", "none 0.01", "none 0.1"]
    assert chosen(four, "norm=batch") == ["batch 0.01", "batch 0.1"]
    assert chosen(four, "lr=1e-1") == ["batch 0.1", "none 0.1"]
    assert chosen(four, "norm=none", "lr=0.01") == ["none 0.01"]
    assert len(chosen(four, "model.hidden=[300,300]", "seed=0", "max_steps=null")) == 4


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["norm=lyer"], "no run of first has norm=lyer. There are: batch, none."),
        (["norm=batch,lyer"], "no run of first has norm=lyer. There are: batch, none."),
        (["lr=1"], "no run of first has lr=1. There are: 0.01, 0.1."),
        (["batchsize=4"], "no run of first has an option batchsize. What there is: batch_size, norm, lr."),
    ],
)
def test_what_no_run_has_is_told_with_what_there_is(four: Path, words: list[str], error: str) -> None:
    with pytest.raises(ReportError) as caught:
        select(load(four), parse(words))
    assert str(caught.value) == error


def test_no_run_with_all_of_it(four: Path) -> None:
    for path in four.glob("*batch*lr0.1*"):
        if "batch-mnist" in path.name:
            shutil.rmtree(path)
    with pytest.raises(ReportError, match=r"no run of first has all of norm=batch lr=0\.1"):
        select(load(four), parse(["norm=batch", "lr=0.1"]))


def test_a_filtered_report_says_so_everywhere_until_it_is_whole_again(
    four: Path, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also which folders can't be read, the study's question, and where the page is; a browser opens it."""
    (four / "broken").mkdir()
    (four / "broken" / "config.yaml").touch()
    words = "Filtered: lr=0.1. 2 of the study's 5 runs."
    report = build(four, only=parse(["lr=0.1"]))
    folder = report.page.parent
    page = report.page.read_text()
    assert words.replace("'", "&#39;") in page
    assert "--filter lr=0.1</pre>" in page
    assert "broken</th>" in page
    for name in ("leaderboard.md", "tables.md"):
        assert f"\n\n> {words}\n" in (folder / name).read_text()
    assert len((folder / "leaderboard.csv").read_text().splitlines()) == 3
    study.rename(study.parent / "demo")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda uri: not opened.append(uri))
    assert main(["report", "--open"]) == 0  # of the study that was changed last
    whole = Path("results/demo/report")
    assert opened == [(whole / "report.html").resolve().as_uri()]
    assert "report: results/demo/report/report.html" in capsys.readouterr().out
    assert "Does batch norm suffer at small batches" in (whole / "report.html").read_text()
    assert len((whole / "leaderboard.csv").read_text().splitlines()) == 5
    assert not any("Filtered" in path.read_text() for path in whole.iterdir() if path.suffix in (".md", ".html"))


def test_where_there_is_no_browser_the_page_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: str) -> bool:
        raise webbrowser.Error("no browser")

    for browser in (lambda _: False, refuse):
        monkeypatch.setattr(webbrowser, "open", browser)
        _open(Path("report.html"))
        assert "No browser was found. Open it yourself:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["results/nowhere"], "results/nowhere is no folder"),
        (["results/nowhere"], "There are: results/first."),
        (["results"], "results holds no runs"),
        (["results/compare_rnn"], "Its runs are made by: normbench run experiment=compare/rnn"),
        (["--filter", "norm=lyer"], "There are: batch, none."),
        (["--filter", "norm=batch", "results/first"], "The study comes before it."),
        (["--margin", "0"], "the margin is in points of accuracy, above 0: got 0."),
        (["--margin", "nan"], "got nan."),
        (["--target", "95"], "targets are accuracies between 0 and 1: got 95."),
        (["--target", "0.9", "--target", "x"], "argument --target: invalid float value: 'x'"),
        (["--formats", "png,eps"], "--formats is a list of png, svg and pdf: got 'png,eps'."),
        (["--reference", "layer"], "got 'layer'. Take one of: none, batch."),
    ],
)
def test_bad_input_is_one_line(four: Path, words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("normbench: error: ")
    assert printed.err.count("\n") == 1
    assert error in printed.err
    assert not (four / "report").exists()
