"""Claims in the report of their study, and how they stand."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.groups import read
from normbench.analysis.selection import parse
from normbench.claims import claim as claim_files
from normbench.claims import report, scoreboard, verdicts
from normbench.claims.claim import Claim
from normbench.report.build import build
from normbench.report.claims import interval, write
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
    page = built.page.read_text()
    assert page.index('<h3 id="claims">') < page.index('<h3 id="leaderboard">') < page.index('<h3 id="comparisons">')
    assert page.count('<h3 id="claims">') == page.count('id="helps-as_stated"') == 1
    assert page.count('<svg class="check"') == 2
    assert "<b>a bit" not in page
    assert page.count('<p class="headline ') == 0
    assert "| helps | as stated |" in (built.page.parent / "tables.md").read_text()
    how_claims_stand(claim, runs.parent)
    part = build(runs, only=parse(["norm=batch"]), extra=report.answers("first"))  # a part answers no claim
    assert part.content.first == []
    assert part.content.claims == ()


def test_the_claim_that_answers_the_question_stands_first(
    runs: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "claims", lambda: (claim.model_copy(update={"main": True, "figure": "cost"}),))
    built = build(runs, extra=report.answers("first"))
    page = built.page.read_text()
    lines = re.findall(r'<p class="headline ([\w-]+)">.*?<strong>([^<]*)</strong>', page, re.DOTALL)
    assert [verdict for verdict, _ in lines] == ["contradicted", "supported"]
    (judged,) = built.content.claims
    assert [number for _, number in lines] == [judged.of(key)[0].measured for key in ("as_stated", "restated")]
    assert page.index('class="headline') < page.index('id="figure-cost"') < page.index('<h2 id="glance"')
    assert re.findall(r'<figure id="figure-(\w+)"', page)[0] == "cost"
    first, second = built.content.conclusions[:2]
    assert first.startswith('Contradicted: "It helps." ')
    assert second.startswith('Supported: "It | helps <b>a bit</b>." ')


def how_claims_stand(claim: Claim, results: Path) -> None:
    """From the files of the report and the record."""
    first, second = verdicts_of([claim], results)
    assert (first["verdict"], second["verdict"]) == ("contradicted", "supported")
    assert (first["measured"], first["expected"]) == ("1 times (exact, n = 3)", "0.5 times or less")
    assert second["measured"].startswith("+2.1 points (")
    assert first["setting"] == "MLP, MNIST, 1 epoch, Adam, batch size 64, lr 0.001"
    assert (first["command"], first["minutes"]) == ("normbench run experiment=first", "")
    changed, other = (claim.model_copy(update=values) for values in ({"digest": "other"}, {"study": "second"}))
    assert [row["verdict"] for row in verdicts_of([changed], results)] == ["out of date"] * 2
    write([claim, other], results)
    folder = scoreboard.folder(results)
    text = (folder / "scoreboard.md").read_text()
    assert "4 statements: 1 supported, 1 contradicted, 2 not run." in text
    page = (folder / "scoreboard.html").read_text()
    assert page.count("<svg ") == 2
    assert page.count('data-topic="robustness" data-verdict="not run"') == 2
    assert "<b>a bit" not in page
    with (folder / "scoreboard.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["contradicted", "supported", "not run", "not run"]


def verdicts_of(claims: list[Claim], results: Path) -> Sequence[Mapping[str, Any]]:
    return scoreboard.statements(scoreboard.status_of(claims, results)).rows


def test_every_number_is_in_the_tables(runs: Path) -> None:
    statements, checks = extra(runs).tables
    first, second = statements.rows
    assert (first["statement"], first["verdict"], first["why"]) == (
        "as stated", "contradicted", "1 supported, 1 contradicted"
    )  # fmt: skip
    assert (second["sentence"], second["verdict"]) == ("It | helps <b>a bit</b>.", "supported")
    first, second, third = checks.rows
    assert first["number"] == pytest.approx(0.021)
    assert first["low"] < 0.021 < first["high"]
    assert (first["n"], first["verdict"], first["answers"]) == (3, "supported", "as stated, restated")
    assert (first["level"], first["seeds"]) == (pytest.approx(1 - 0.05 / 3), "0:0.02 1:0.021 2:0.022")
    assert first["remarks"] == "norm=batch: 1 of 4 diverged"
    assert (second["check"], second["measured"]) == (
        "seconds.training: norm=batch over norm=none",
        "1 times (exact, n = 3)",
    )
    assert (second["low"], third["number"], third["expected"]) == (1.0, 0.0, "-1e-10 to 1e-10")


def test_what_breaks_costs_no_report(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report.answers("other") is None
    monkeypatch.setattr(verdicts, "decide", lambda *_: 1 / 0)
    statements, checks = extra(runs).tables
    assert {row["verdict"] for row in statements.rows} == {"undecided"}
    assert checks.rows[0]["remarks"] == "could not be answered: ZeroDivisionError: division by zero"


def test_a_check_of_every_kind_is_drawn(add: Add, judged: Callable[..., verdicts.Judged], check: Check) -> None:
    """Where the numbers are: the axis is 324 pixels, with 12% of what it spans on either side of it."""
    for seed in range(8):
        add(norm="none", seed=seed, accuracy=0.9, curve=(0.1,) * 5 + ((0.95,) if seed else ()))
        add(norm="batch", seed=seed, accuracy=0.91 + seed / 1000, curve=(0.1, 0.95))
    steps: dict[str, Any] = {"metric": {"steps_to": 0.9}, "expect": "lower"}
    found = judged(
        check(expect="equal"), check(**steps, scale="ratio", margin=1.5), check(**steps),
        check(metric="test_accuracy", against=None, than=0.5), check(metric="nothing"), check(),
    ).answers  # fmt: skip
    drawn = [interval(answer) for answer in found]
    assert drawn[4] == ""
    assert [svg.count('class="seed"') for svg in drawn] == [8, 8, 8, 8, 0, 8]
    assert [svg.count('class="margin"') for svg in drawn] == [2, 1, 1, 1, 0, 1]
    assert drawn[2].count("<path") == 1, "open on one side"
    assert "<path" not in interval(replace(found[5], low=None, high=None)), "no interval of one seed"
    assert all(not svg or svg.count("<text") >= 3 for svg in drawn), "the zone and two ticks have names"
    assert found[5].number == pytest.approx(0.0135)  # of 0 to 1.7 points; the margin is at 0.5
    place = {at: 8 + 324 * (at + 0.12 * 1.7) / (1.24 * 1.7) for at in (0.5, 1.35)}
    assert f'<rect x="{place[1.35] - 4:.1f}" y="33"' in drawn[5]
    assert f'<line x1="{place[0.5]:.1f}"' in drawn[5]
    assert f'<rect x="{place[0.5]:.1f}" y="15" width="{340 - place[0.5]:.1f}"' in drawn[5]


def test_claims_of_calculations_have_a_table_of_their_own(
    tmp_path: Path, claim_of: Callable[..., Claim], check: Check
) -> None:
    one = check(metric={"calculation": "c", "number": "a"}, of=None, against=None, than=1, margin=0.1)
    claim = claim_of(one, study=None, figure=None)
    assert [row["verdict"] for row in verdicts_of([claim], tmp_path)] == ["not run"]
    for value, verdict in ((2.0, "supported"), ([1.0, 1.01, 0.99], "contradicted"), ([2.0, 0.0], "undecided")):
        scoreboard.write_calculated(tmp_path, {"c": {"a": value}})
        assert scoreboard.calculated(tmp_path) == {"c": {"a": value}}
        assert [row["verdict"] for row in verdicts_of([claim], tmp_path)] == [verdict]
    scoreboard.folder(tmp_path).joinpath("record.json").write_text("{")
    assert scoreboard.calculated(tmp_path) == {}


def test_minutes_are_read_from_the_experiment() -> None:
    found = {claim.study: scoreboard.minutes(claim.study) for claim in claim_files.claims()}
    assert all(float(text) > 0 for study, text in found.items() if study), found
    assert (found[""], scoreboard.minutes("not_there")) == ("< 1", "")


def test_numbers_in_words(claim_of: Callable[..., Claim], check: Check) -> None:
    loss = {"metric": "test_loss"}
    plain, signed = (claim_of(check(**words)).checks[0] for words in ({"against": None}, loss))
    numbers = (0.01234, 1234.5, 1e-17, -0.5, 0.0, -0.0, float("-inf"))
    assert [plain.text(x) for x in numbers] == ["0.0123", "1,234", "1e-17", "-0.5", "0", "0", "-∞"]
    assert signed.text(0.5) == "+0.5"
    asked = [{}, {"expect": "lower"}, {"expect": "equal"}, {"scale": "ratio", "margin": 1.25, "expect": "equal"},
             {"against": None, "than": 0.9}, {"margin": 0},
             {"scale": "ratio", "margin": 1, "expect": "lower"}]  # fmt: skip
    assert [claim_of(check(**words)).checks[0].expected for words in asked] == [
        "+0.5 points or more", "-0.5 points or less", "-0.5 to +0.5 points", "0.8 to 1.25 times", "0.905 or more",
        "above 0 points", "below 1 times",
    ]  # fmt: skip
