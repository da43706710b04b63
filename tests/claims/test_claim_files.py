"""What a claim file may say, and every one that there is."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from normbench.analysis.groups import Groups
from normbench.analysis.groups import read as read_groups
from normbench.claims.arms import chosen
from normbench.claims.claim import Claim, ClaimError, claims, find, read
from normbench.claims.grammar import kind, words
from normbench.config.compose import expand
from normbench.config.options import choices, config_dir
from normbench.plots import figures
from normbench.runs import SCHEMA_VERSION, Run, Study

FILES = sorted((config_dir() / "claims").glob("*.yaml"))
assert len(FILES) >= 3


@cache
def grid(experiment: str) -> Groups:
    """The groups of an experiment, as its study will have them."""
    runs = []
    for composed in expand([f"experiment={experiment}"], lambda device: "cpu").run_configs:
        run = Run(composed.folder)
        record = {"schema_version": SCHEMA_VERSION, "choices": composed.choices, "config": composed.config}
        run.__dict__.update(record=record, summary={})
        runs.append(run)
    return read_groups(Study(Path(experiment), tuple(runs)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_claim_on_disk(path: Path) -> None:
    claim = read(path)
    assert claim.title, "the first line is a comment that says it in short"
    assert not claim.title.endswith(".")
    if claim.study:
        assert claim.study in choices("experiment")
        assert claim.figure in {module.NAME for module in figures.FIGURES}
    for check in claim.checks:
        if check.calculation:
            continue
        for only in filter(None, (check.of, check.against)):
            over = {check.metric.get("over", "norm")} if kind(check.metric) == "correlate" else check.mean_over  # type: ignore[union-attr]
            assert chosen(grid(claim.study), only, over), "of no run, or options are left open"


def test_claims_come_in_their_order() -> None:
    found = claims()
    assert [claim.id for claim in found] == [claim.id for claim in find([])]
    assert [claim.order for claim in found] == sorted(claim.order for claim in found)
    assert {claim.id for claim in found} == {path.stem for path in FILES}
    assert [claim.id for claim in find([found[1].id, found[0].id])] == [found[0].id, found[1].id]
    with pytest.raises(ClaimError, match=r"there is no claim small_batch_fail\. There is: small_batch_fails"):
        find(["small_batch_fail"])


def test_what_is_left_out(claim_of: Callable[..., Claim], check: Callable[..., dict[str, Any]]) -> None:
    of = {"norm": "batch", "norm.placement": "after", "batch_size": 2, "model.hidden": "[30, 30]", "lr": [1, "1e-1"]}
    claim = claim_of(check(of=of), check(expect="equal", margin=0.01, say="so"), restated="It helps a bit.")
    first, second = claim.checks
    assert first.against == {
        "norm": ("none",),
        "batch_size": ("2",),
        "model.hidden": ("[30, 30]",),
        "lr": ("1", "1e-1"),
    }
    assert first.answers == ("as_stated", "restated")
    assert first.words == ("test accuracy: norm=batch norm.placement=after batch_size=2 model.hidden=[30, 30] "
                           "lr=1,1e-1 minus norm=none")  # fmt: skip
    assert second.words == "so"
    assert (claim.title, claim.level, claim.statements["restated"]) == ("it helps", 0.975, "It helps a bit.")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("seconds.training", "seconds training"),
        ({"steps_to": 0.95}, "updates to 95% validation accuracy"),
        ({"seconds_to": 0.9}, "seconds of training to 90% validation accuracy"),
        ({"trained": True}, "trained (1) or not (0)"),
        ({"accuracy": "test"}, "test accuracy (diverged: chance)"),
        ({"gap_at": 0.1}, "validation minus training loss where the training loss is 0.1"),
        ({"minus": ["test_loss", "train_loss"]}, "(test loss) minus (train loss)"),
        ({"ratio": [{"steps_to": 0.5}, "steps"]}, "(updates to 50% validation accuracy) over (steps)"),
        ({"table": "shift", "column": "a_b", "where": {"unit": None, "layer": ["x", "y"]}, "at": "max"},
         "a b (shift, unit=null layer=x,y, max snapshot, mean)"),
        ({"correlate": ["a", {"trained": True}]}, "rank correlation over norm: a with trained (1) or not (0)"),
        ({"calculation": "ln_ignores_batch", "number": "layer"}, "ln ignores batch: layer"),
    ],
)  # fmt: skip
def test_metrics_in_words(metric: Any, said: str) -> None:
    assert words(metric) == said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"order": None}, "a claim needs order"),
        ({"as_stated": None}, "a claim needs as_stated"),
        ({"studdy": "x"}, "a claim has no key studdy. Did you mean study?"),
        ({"study": None}, "checks of runs need study: NAME"),
    ],
)
def test_a_claim_that_cannot_be_meant(claim_of: Callable[..., Claim], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ClaimError, match=message) as raised:
        claim_of(**values)
    assert "helps.yaml" in str(raised.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metric": None}, "check 1: a check needs metric"),
        ({"expects": "higher"}, "a check has no key expects. Did you mean expect?"),
        ({"expect": "better"}, "expect is one of higher, lower, equal: got better"),
        ({"margin": -0.1}, r"the margin is at least 0 \(not negative"),
        ({"margin": 0, "expect": "equal"}, "the margin is above 0"),
        ({"scale": "ratio"}, r"the margin is at least 1 \(a factor"),
        ({"scale": "log"}, "scale is difference or ratio: got log"),
        ({"of": None}, "a check names the runs with `of`"),
        ({"of": "batch"}, "of is written {option: value}"),
        ({"than": 0.5}, "either with the runs `against` or with the number `than`"),
        ({"mean_over": "lr"}, "mean_over is a list of options"),
        ({"answers": ["restated"]}, "answers are of as_stated: got restated"),
        ({"metric": {"steps_too": 0.9}}, "a metric is a number of summary.json or one of steps_to"),
        ({"metric": {"steps_to": 95}}, "steps_to takes an accuracy between 0 and 1: got 95. 95% is 0.95"),
        ({"metric": {"table": "shift"}}, "table needs column"),
        ({"metric": {"table": "shift", "column": "x", "wher": {}}}, "table has no key wher. Did you mean where?"),
        ({"metric": {"table": "shift", "column": "x", "at": "end"}}, "at of a table is one of last, first, max, mean"),
        ({"metric": {"trained": False}}, "trained is written"),
        ({"metric": {"accuracy": "train"}}, "accuracy is test or validation: got train"),
        ({"metric": {"gap_at": 0}}, "gap_at takes a training loss above 0"),
        ({"metric": {"minus": ["a"]}}, r"minus takes two metrics, \[A, B\]"),
        ({"metric": {"ratio": ["a", {"steps_to": 2}]}}, "steps_to takes an accuracy"),
        ({"metric": {"minus": ["a", {"correlate": ["a", "b"]}]}}, "correlate can't be a part of another metric"),
        ({"metric": {"correlate": ["a", "b"]}, "mean_over": ["lr"]}, "leave out mean_over"),
        ({"metric": {"calculation": "folds", "number": "x"}}, "the number of a calculation does not"),
        ({"scale": "ratio", "margin": 2, "against": None}, "`than` is a number above 0"),
    ],
)
def test_a_check_that_cannot_be_meant(
    claim_of: Callable[..., Claim], check: Callable[..., dict[str, Any]], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClaimError, match=message):
        claim_of(check(**values))


def test_a_file_that_is_no_claim(tmp_path: Path) -> None:
    for text, message in (("# x\n- 1\n", "a claim is written key: value"), ("a: [", "claim x: .*expected")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ClaimError, match=message):
            read(tmp_path / "x.yaml")


def test_each_statement_needs_a_check(claim_of: Callable[..., Claim], check: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ClaimError, match="no check answers restated"):
        claim_of(check(answers=["as_stated"]), restated="But.")
