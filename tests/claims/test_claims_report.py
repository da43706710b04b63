"""Claims in the report of their study, and how they stand."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.groups import read
from normbench.analysis.selection import parse
from normbench.claims import claim as claim_files
from normbench.claims import figure, report, scoreboard, verdicts
from normbench.claims.claim import Claim
from normbench.report.build import build
from normbench.runs import load

Add = Callable[..., Path]
Check = Callable[..., dict[str, Any]]


@pytest.fixture
def claim(claim_of: Callable[..., Claim], check: Check, monkeypatch: pytest.MonkeyPatch) -> Claim:
    """Batch norm is more accurate, as stated also in less time, of a claim of the study `first`."""
    cost = check(metric="seconds.training", scale="ratio", expect="lower", margin=2, answers=["as_stated"])
    zero = check(metric={"calculation": "c", "number": "a"}, of=None, against=None, expect="equal", margin=1e-10)
    made = claim_of(check(), cost, {**zero, "answers": ["restated"]}, restated="It | helps <b>a bit</b>.")
    monkeypatch.setattr(report, "claims", lambda: (made,))
    return made


@pytest.fixture
def runs(study: Path, add: Add, claim: Claim) -> Path:
    for seed, accuracy in enumerate((0.90, 0.92, 0.91)):
        add(norm="none", seed=seed, accuracy=accuracy)
        add(norm="batch", seed=seed, accuracy=accuracy + 0.02 + seed / 1000)
    add(norm="batch", seed=3, status="diverged")
    scoreboard.write_calculated(study.parent, {"c": {"a": 0.0}})
    return study


def extra(study: Path) -> report.Extra:
    made = report.answers("first")
    assert made is not None
    return made(read(load(study)))


def test_claims_come_first_in_the_report_of_their_study(runs: Path, claim: Claim) -> None:
    built = build(runs, extra=report.answers("first"))
    assert [table.name for table in built.content.tables][:3] == ["claims", "claim_checks", "leaderboard"]
    assert built.content.figures[0].name == "claims"
    page = built.page.read_text()
    assert page.index('<h3 id="claims">') < page.index('<h3 id="leaderboard">') < page.index('<h3 id="comparisons">')
    assert page.count('<h3 id="claims">') == page.count('id="figure-claims"') == 1
    assert "<b>a bit" not in page
    assert "Claim helps, restated: supported (2 supported): " in page
    assert "| helps | as stated |" in (built.page.parent / "tables.md").read_text()
    how_claims_stand(claim, runs.parent)
    part = build(runs, only=parse(["norm=batch"]), extra=report.answers("first"))  # a part answers no claim
    assert part.content.first == []
    assert "claims" not in {figure.name for figure in part.content.figures}


def how_claims_stand(claim: Claim, results: Path) -> None:
    """From the files of the report and the record."""
    first, second = scoreboard.status_of([claim], results)
    assert (first["verdict"], second["verdict"]) == ("contradicted", "supported")
    assert first["measured"].startswith("+0.021 (")
    assert first["setting"] == "mlp, mnist, adam, batch size 64, lr 0.001"
    assert (first["command"], first["minutes"]) == ("normbench run experiment=first", "")
    changed, other = (claim.model_copy(update=values) for values in ({"digest": "other"}, {"study": "second"}))
    assert [row["verdict"] for row in scoreboard.status_of([changed], results)] == ["out of date"] * 2
    scoreboard.write([claim, other], results)
    folder = scoreboard.folder(results)
    text = (folder / "scoreboard.md").read_text()
    assert "4 statements: 1 supported, 1 contradicted, 2 not run." in text
    with (folder / "scoreboard.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["contradicted", "supported", "not run", "not run"]


def test_every_number_is_in_the_tables(runs: Path) -> None:
    statements, checks = extra(runs).tables
    first, second = statements.rows
    assert (first["statement"], first["verdict"], first["checks"]) == (
        "as stated", "contradicted", "1 supported, 1 contradicted"
    )  # fmt: skip
    assert (second["sentence"], second["verdict"]) == ("It | helps <b>a bit</b>.", "supported")
    first, second, third = checks.rows
    assert first["number"] == pytest.approx(0.021)
    assert first["low"] < 0.021 < first["high"]
    assert (first["n"], first["verdict"], first["answers"]) == (3, "supported", "as stated, restated")
    assert (first["level"], first["seeds"]) == (pytest.approx(1 - 0.05 / 3), "0:0.02 1:0.021 2:0.022")
    assert first["remarks"] == "norm=batch: 1 of 4 diverged"
    assert (second["check"], second["measured"]) == ("seconds.training: norm=batch over norm=none", "1 (exact, n = 3)")
    assert (second["low"], third["number"], third["expected"]) == (1.0, 0.0, "-1e-10 to 1e-10")


def test_what_breaks_costs_no_report(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report.answers("other") is None
    monkeypatch.setattr(figure, "draw", lambda *_: 1 / 0)
    assert extra(runs).figures[0].caption == "Could not be drawn: ZeroDivisionError: division by zero"
    monkeypatch.setattr(verdicts, "decide", lambda *_: 1 / 0)
    statements, checks = extra(runs).tables
    assert {row["verdict"] for row in statements.rows} == {"inconclusive"}
    assert checks.rows[0]["remarks"] == "could not be answered: ZeroDivisionError: division by zero"


def test_a_check_of_every_kind_is_drawn(study: Path, add: Add, claim_of: Callable[..., Claim], check: Check,
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for seed in range(8):
        add(norm="none", seed=seed, curve=(0.1,) * 5 + ((0.95,) if seed else ()))
        add(norm="batch", seed=seed, curve=(0.1, 0.95))
    steps: dict[str, Any] = {"metric": {"steps_to": 0.9}, "expect": "lower"}
    made = claim_of(
        check(expect="equal"), check(**steps, scale="ratio", margin=1.5), check(**steps),
        check(metric="test_accuracy", against=None, than=0.5), check(metric="nothing"),
    )  # fmt: skip
    monkeypatch.setattr(report, "claims", lambda: (made,))
    drawn, again = extra(study).figures[0], extra(study).figures[0]
    assert len(drawn.png) > 10_000
    assert (drawn.svg[:4], drawn.svg, drawn.png) == (b"<svg", again.svg, again.png)  # the same bytes
    assert drawn.caption.endswith("Without a number: 1 of the checks.")


def test_claims_of_calculations_have_a_table_of_their_own(
    tmp_path: Path, claim_of: Callable[..., Claim], check: Check
) -> None:
    one = check(metric={"calculation": "c", "number": "a"}, of=None, against=None, than=1, margin=0.1)
    claim = claim_of(one, study=None, figure=None)
    for value, verdict in ((2.0, "supported"), ([1.0, 1.01, 0.99], "contradicted"), ([2.0, 0.0], "inconclusive")):
        scoreboard.write_calculated(tmp_path, {"c": {"a": value}})
        assert scoreboard.calculated(tmp_path) == {"c": {"a": value}}
        scoreboard.write([claim], tmp_path)
        assert [row["verdict"] for row in scoreboard.status_of([claim], tmp_path)] == [verdict]
    scoreboard.folder(tmp_path).joinpath("record.json").write_text("{")
    assert scoreboard.calculated(tmp_path) == {}


def test_minutes_are_read_from_the_experiment() -> None:
    found = {claim.study: scoreboard.minutes(claim.study) for claim in claim_files.claims()}
    assert all(float(text) > 0 for study, text in found.items() if study), found
    assert (found[""], scoreboard.minutes("not_there")) == ("< 1", "")


def test_numbers_in_words(claim_of: Callable[..., Claim], check: Check) -> None:
    plain, signed = (claim_of(check(**words)).checks[0] for words in ({"against": None}, {}))
    numbers = (0.01234, 1234.5, 1e-17, -0.5, 0.0, -0.0, float("-inf"))
    assert [plain.text(x) for x in numbers] == ["0.0123", "1,234", "1e-17", "-0.5", "0", "0", "-∞"]
    assert signed.text(0.5) == "+0.5"
    asked = [{}, {"expect": "lower"}, {"expect": "equal"}, {"scale": "ratio", "margin": 1.25, "expect": "equal"},
             {"against": None, "than": 0.9}]  # fmt: skip
    assert [claim_of(check(**words)).checks[0].expected for words in asked] == [
        "+0.005 or more", "-0.005 or less", "-0.005 to +0.005", "0.8 to 1.25 times", "0.905 or more",
    ]  # fmt: skip
