"""Verdicts, computed by hand: closed forms of Student's t with 2 degrees of freedom."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normbench.analysis.statistics import power
from normbench.claims.claim import Claim
from normbench.claims.scoreboard import needs
from normbench.claims.verdicts import Answer, Judged, combined, judge, verdict

Add = Callable[..., Path]
Check = Callable[..., dict[str, Any]]
S, T, C, U = "supported", "true but small", "contradicted", "undecided"


def t2(level: float) -> float:
    """The quantile of Student's t with 2 degrees of freedom that bounds an interval of this level."""
    return level * math.sqrt(2 / (1 - level**2))


def three(add: Add, norm: str, *accuracies: float, **settings: Any) -> None:
    for seed, accuracy in enumerate(accuracies):
        add(norm=norm, seed=seed, accuracy=accuracy, **settings)


@pytest.mark.parametrize(
    ("expect", "limits", "low", "high", "expected"),
    [
        ("higher", [0.1], 0.1, 0.3, S), ("higher", [0.1], 0.09, 0.3, U), ("higher", [0.1], -1, 0.09, C),
        ("higher", [0.1], 0.01, 0.09, T), ("higher", [0.1], 0.0, 0.09, C), ("lower", [-0.1], -0.09, -0.01, T),
        ("lower", [-0.1], -0.3, -0.1, S), ("lower", [-0.1], -0.3, -0.09, U), ("lower", [-0.1], -0.09, 1, C),
        ("equal", [-0.1, 0.1], -0.1, 0.1, S), ("equal", [-0.1, 0.1], 0.11, 0.3, C), ("equal", [-0.1, 0.1], 0.0, 0.3, U),
        ("equal", [-0.1, 0.1], -0.3, -0.11, C), ("equal", [-0.1, 0.1], -0.3, 0.3, U),
        ("higher", [0.1], 0.2, math.inf, S), ("higher", [0.1], -math.inf, 0.2, U), ("higher", [0.1], 0.0, math.inf, U),
        ("higher", [0.005], 0.945 - 0.94, 1, S),
    ],
)  # fmt: skip
def test_intervals(expect: str, limits: list[float], low: float, high: float, expected: str) -> None:
    assert verdict(expect, limits, low, high) == expected


@given(st.floats(-2, 2), st.floats(0, 2), st.floats(1e-6, 1))
def test_swapping_the_sides_swaps_higher_and_lower(low: float, width: float, margin: float) -> None:
    high = low + width
    assert verdict("higher", [margin], low, high) == verdict("lower", [-margin], -high, -low)
    limits = [-margin, margin]
    assert verdict("equal", limits, low, high) == verdict("equal", limits, -high, -low)
    assert not (verdict("higher", [margin], low, high) == S == verdict("lower", [-margin], low, high))


@given(st.floats(-2, 2), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1))
def test_a_wider_interval_never_turns_a_verdict_round(low: float, width: float, margin: float, more: float) -> None:
    for expect, limits in (("higher", [margin]), ("lower", [-margin]), ("equal", [-margin, margin])):
        narrow, wide = (
            verdict(expect, limits, low, low + width),
            verdict(expect, limits, low - more, low + width + more),
        )
        assert wide in (narrow, U) or (narrow, wide) == (T, C)  # below the margin all the same


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([S, S], S), ([C], C), ([S, C], C), ([C, U, T], C), ([S, T], T), ([T, U], U), ([S, U], U), ([], U)],
)
def test_a_conjunction_with_a_refuted_part_is_refuted(verdicts: list[str], expected: str) -> None:
    assert combined(verdicts) == expected


def test_what_depends_on_the_setting_and_the_check_that_decides(
    add: Add, judged: Callable[..., Judged], check: Check
) -> None:
    """Batch norm is 2 points ahead at batch size 64, as far behind at 4, and 8 ahead at 2."""
    for size, gain in ((64, 0.02), (4, -0.02), (2, 0.08)):
        three(add, "none", 0.80, 0.82, 0.81, batch_size=size)
        three(add, "batch", 0.80 + gain, 0.82 + gain, 0.81 + gain + 1e-3, batch_size=size)
    at = {size: check(of={"norm": "batch", "batch_size": size}) for size in (2, 64, 4)}
    found = judged(*at.values(), restated="At batch size 64 and at 4.")
    assert [answer.verdict for answer in found.answers] == [S, S, C]
    assert (found.verdict("as_stated"), found.verdict("restated")) == ("it depends", C)
    assert found.why("as_stated") == "supported at batch_size=2, contradicted at batch_size=4"
    assert found.why("restated") == "2 supported, 1 contradicted"
    assert found.deciding("as_stated") == [found.answers[0], found.answers[2]]
    assert found.deciding("restated") == [found.answers[2]]
    small = {**at[64], "margin": 0.05}
    assert judged(at[2], small).verdict("as_stated") == T
    assert judged(small, at[4]).verdict("as_stated") == C  # another question
    weakest = judged(at[2], at[64])
    assert (weakest.verdict("as_stated"), weakest.deciding("as_stated")) == (S, [weakest.answers[1]])


def test_what_settles_it(add: Add, answer: Callable[..., Answer], judged: Callable[..., Judged], check: Check) -> None:
    """Differences 0.02, 0.03, 0.01 beside 0.005: an effect of 1.5 standard deviations has power 0.8 with 6 pairs."""
    three(add, "none", 0.90, 0.92, 0.91)
    three(add, "batch", 0.92, 0.95, 0.92)
    found = answer()
    assert power(1.5, 6) >= 0.8 > power(1.5, 5)
    assert (found.verdict, found.seeds_needed, found.needs, found.seconds) == (U, 3, "3 more seeds", 3 * 2 * 13.0)
    [sweep] = found.sweeps
    assert sweep == ["norm=batch,none", "model=mlp", "study=first", "seed=3,4,5"]
    assert answer(margin=0.0201).needs == "more than 50 seeds"
    assert answer(margin=0).needs == "2 more seeds"
    assert answer(expect="lower", margin=0.02).needs == ""  # contradicted
    assert power(1.0, 10) >= 0.8 > power(1.0, 9)
    assert answer(expect="equal", margin=0.03).seeds_needed == 7
    assert needs(judged(check()), "as_stated") == "3 more seeds (78 s)"


def test_seeds_that_chose_an_lr_do_not_count_with_fresh_ones(add: Add, answer: Callable[..., Answer]) -> None:
    for lr, lost in ((0.01, 0.3), (0.1, 0.0), (1.0, 0.3)):
        three(add, "none", 0.90 - lost, 0.92 - lost, 0.91 - lost, lr=lr)
        three(add, "batch", 0.92 - lost, 0.95 - lost, 0.92 - lost, lr=lr)
    found = answer()
    assert (found.seeds_needed, found.sweeps[0][-2:]) == (6, ["study=first", "seed=3,4,5,6,7,8"])
    three(add, "batch", 0.97, 0.97, 0.97, lr=3.0)
    assert answer().needs == "lr=10 of batch"
    assert answer().sweeps[0][-2:] == ["lr=10", "seed=0,1,2"]


def test_a_difference_by_hand(add: Add, judged: Callable[..., Judged], check: Check) -> None:
    three(add, "none", 0.90, 0.92, 0.91)
    three(add, "batch", 0.92, 0.95, 0.92)  # differences 0.02, 0.03, 0.01: mean 0.02, sd 0.01
    half = t2(0.975) * 0.01 / math.sqrt(3)  # two checks: 97.5% each
    first, second = (
        found := judged(check(margin=0.03, answers=["as_stated"]), check(expect="equal"), restated="x")
    ).answers
    assert (first.n, first.number, first.low, first.high) == pytest.approx((3, 0.02, 0.02 - half, 0.02 + half))
    assert [first.verdict, second.verdict, found.verdict("as_stated"), found.verdict("restated")] == [U, U, U, U]
    assert dict(first.values) == pytest.approx({0: 0.02, 1: 0.03, 2: 0.01})
    assert found.answers[0].remarks == ""


def test_a_ratio_by_hand(add: Add, answer: Callable[..., Answer]) -> None:
    for seed, factor in enumerate((2.0, 4.0, 8.0)):
        add(norm="none", seed=seed, summary={"steps": 10})
        add(norm="batch", seed=seed, summary={"steps": 10 * factor})
    half = t2(0.95) * math.log(2) / math.sqrt(3)
    found = answer(metric="steps", scale="ratio", margin=1.1)
    low, high = 4 * math.exp(-half), 4 * math.exp(half)
    assert (found.number, found.low, found.high) == pytest.approx((4, low, high))
    assert (found.verdict, found.check.words) == (U, "steps: norm=batch over norm=none")
    alone = answer(metric="steps", scale="ratio", margin=1.1, against=None, than=20)
    assert (alone.number, dict(alone.values)) == (pytest.approx(40), pytest.approx({0: 20, 1: 40, 2: 80}))


def test_without_spread_the_number_decides_from_three_pairs_on(add: Add, answer: Callable[..., Answer]) -> None:
    for seed, accuracy in enumerate((0.90, 0.91, 0.95)):
        add(norm="none", seed=seed, accuracy=accuracy)
        add(norm="batch", seed=seed, accuracy=accuracy + 0.02)
        found = answer(margin=0.02)
        assert (found.n, found.number) == (seed + 1, pytest.approx(0.02))
        assert (found.verdict, found.low) == ((U, None) if seed < 2 else (S, pytest.approx(0.02)))


def test_runs_without_a_number_make_no_pair_and_are_told(add: Add, answer: Callable[..., Answer]) -> None:
    three(add, "none", 0.9, 0.92, 0.91, 0.93)
    three(add, "batch", 0.92, 0.95, 0.92)
    add(norm="batch", seed=3, status="diverged")
    add(norm="batch", seed=4, status="failed")
    found = answer()
    assert found.n == 3
    assert found.remarks == "norm=batch: 1 of 5 diverged, 1 of 5 failed; no pair for seed 3"
    counted = answer(metric={"accuracy": "test"})
    assert (counted.n, counted.values[3]) == (4, pytest.approx(0.1 - 0.93))
    assert "1 of 5 diverged" in counted.remarks
    assert (answer(metric="nothing").n, answer(metric="nothing").verdict) == (0, U)


def test_each_side_has_its_own_best_lr(add: Add, answer: Callable[..., Answer]) -> None:
    three(add, "none", 0.90, 0.92, 0.91, lr=0.1)
    three(add, "none", 0.1, 0.1, 0.1, lr=1.0)
    three(add, "none", 0.1, 0.1, 0.1, lr=0.01)
    three(add, "batch", 0.1, 0.1, 0.1, lr=0.1)
    three(add, "batch", 0.9201, 0.94, 0.9299, lr=1.0)
    found = answer()
    assert (found.verdict, found.number) == (U, pytest.approx(0.02))
    assert found.remarks == "norm=batch: lr 1 (the best lr lies at the edge (1); add lr=3); norm=none: lr 0.1"
    assert [answer(expect="lower").verdict, answer(any_lr=True).verdict, answer(margin=0.0201).verdict] == [U, S, U]
    at_both = answer(of={"norm": "batch", "lr": "1e-1"})
    assert (at_both.number, at_both.verdict) == (pytest.approx(0.1 - 0.91), C)  # an lr that the claim names
    assert answer(against={"norm": "none", "lr": 1}, of={"norm": "batch", "lr": 1.0}).number == pytest.approx(0.83)
    three(add, "batch", 0.5, 0.5, 0.5, lr=3.0)
    assert (answer().verdict, answer().remarks) == (S, "norm=batch: lr 1; norm=none: lr 0.1")


def test_fresh_seeds_count_alone_once_there_are_three_on_both_sides(add: Add, answer: Callable[..., Answer]) -> None:
    for norm, gain in (("none", 0.0), ("batch", 0.05)):
        for lr, lost in ((0.01, 0.3), (0.1, 0.0), (1.0, 0.3)):
            three(add, norm, 0.90 + gain - lost, 0.92 + gain - lost, 0.91 + gain - lost, lr=lr)
        for seed in (100, 101):
            add(norm=norm, seed=seed, lr=0.1, accuracy=0.9)
    assert set(answer().values) == {0, 1, 2, 100, 101}
    for norm in ("none", "batch"):
        add(norm=norm, seed=102, lr=0.1, accuracy=0.9)
    assert dict(answer().values) == pytest.approx({100: 0, 101: 0, 102: 0})  # and not the 0.05 that chose
    assert len(answer(of={"norm": "batch", "lr": 0.1}).values) == 6  # no lr was chosen


def test_intervals_allow_for_the_lrs_that_the_same_seeds_have_chosen_among(
    add: Add, answer: Callable[..., Answer]
) -> None:
    for lr, lost in ((0.01, 0.3), (0.1, 0.0), (1.0, 0.3), (3.0, 0.4)):
        three(add, "none", 0.90 - lost, 0.92 - lost, 0.91 - lost, lr=lr)
        three(add, "batch", 0.92 - lost, 0.95 - lost, 0.92 - lost, lr=lr)  # by 0.02, 0.03, 0.01
    for found, level in (
        (answer(), 1 - 0.05 / 4),
        (answer(any_lr=True), 0.95),
        (answer(of={"norm": "batch", "lr": 0.1}), 0.95),
    ):
        assert (found.level, found.high) == pytest.approx((level, 0.02 + t2(level) * 0.01 / math.sqrt(3)))


def test_an_option_left_open(add: Add, answer: Callable[..., Answer]) -> None:
    for size in (2, 4):
        three(add, "none", 0.90, 0.92, 0.91, batch_size=size)
        three(add, "batch", 0.90 + size / 100, 0.92 + size / 100, 0.91 + size / 200, batch_size=size)
    words = "leaves more than the lr and the seed open"
    assert answer().remarks == f"norm=batch {words}: batch (batch size 2); batch (batch size 4)"
    assert answer(of={"batch_size": 2}).remarks.startswith(f"batch_size=2 {words}: none (batch size 2); batch")
    assert answer(of={"norm": "rms"}).remarks == "no run has norm=rms"


def test_options_of_a_scheme(add: Add, answer: Callable[..., Answer]) -> None:
    for place, gain in (("before", 0.0), ("after", 0.01)):
        three(add, "batch", 0.90 + gain, 0.92 + gain, 0.91 + gain, options={"norm.placement": place})
    three(add, "none", 0.9, 0.9, 0.9)
    assert "norm=batch leaves more than the lr and the seed open: batch placement=after" in answer().remarks
    after = {"norm": "batch", "norm.placement": "after"}
    assert answer(of=after, against={"norm.placement": "before"}).number == pytest.approx(0.01)
    assert answer(of=after).n == 3  # none has no such option


def test_a_run_that_never_gets_there_has_an_infinite_number(
    add: Add, answer: Callable[..., Answer], judged: Callable[..., Judged], check: Check
) -> None:
    """`none` never gets there in one seed of eight: Student's interval has no end; that of the median has."""
    for seed in range(8):
        add(norm="none", seed=seed, curve=(0.1,) * (1 + seed) + ((0.9,) if seed else ()))
        add(norm="batch", seed=seed, curve=(0.1, 0.9))
    steps: dict[str, Any] = {"metric": {"steps_to": 0.9}, "scale": "ratio"}
    found = answer(**steps, expect="lower", margin=1.1)
    assert dict(found.values) == pytest.approx({0: 0} | {seed: 1 / (1 + seed) for seed in range(1, 8)})
    assert (found.low, found.high, found.verdict) == (0, pytest.approx(1 / 2), S)
    assert "norm=none: 1 of 8 never gets there; interval of the median" in found.remarks
    assert found.measured == "0.183 times (0 to 0.5, n = 8)"
    assert answer(**steps, expect="lower", margin=100).verdict == U  # and not contradicted
    assert answer(**steps, expect="higher", margin=1).verdict == C
    never = answer(metric={"steps_to": 0.99}, expect="equal", margin=5)
    assert (never.n, never.verdict, never.measured) == (0, U, "no number")
    assert "8 pairs without a difference" in never.remarks
    some = answer(metric={"steps_to": 0.9}, against=None, expect="lower", of={"norm": "none"})
    assert some.measured == "55 (20 to ∞, n = 8)"
    few = judged(*[check(**steps, expect="lower", margin=1.1)] * 10).answers[0]  # each at 99.5%
    assert (few.n, few.low, few.verdict) == (8, None, U)
    assert few.remarks.endswith("some never get there: an interval takes 9 seeds")


def test_a_correlation_over_schemes(add: Add, answer: Callable[..., Answer]) -> None:
    shifts = {"none": (3, 3, 4), "batch": (1, 2, 3), "layer": (2, 1, 2), "rms": (4, 4, 1)}
    costs = {"none": 3, "batch": 1, "layer": 2, "rms": 4}
    for norm, values in shifts.items():
        for seed, shift in enumerate(values):
            curve = (0.1,) * costs[norm] + ((0.9,) if norm != "rms" else ())  # which never gets there: behind all
            add(norm=norm, seed=seed, summary={"shift": shift}, curve=curve)
    words: dict[str, Any] = {"of": {"dataset": "mnist"}, "against": None, "margin": 0}
    found = answer(metric={"correlate": ["shift", {"steps_to": 0.5}]}, **words)
    assert dict(found.values) == pytest.approx({0: 1, 1: 0.8, 2: -0.4})  # 1 - 6 sum(d^2) / (n^3 - n)
    assert found.high is None or found.high <= 1
    assert "rms 3 of 3 never gets there" in found.remarks
    assert answer(metric={"correlate": ["shift", "steps"]}, **words).n == 0  # no spread
    two = {**words, "of": {"norm": ["none", "batch"]}}
    assert answer(metric={"correlate": ["shift", "train_loss"]}, **two).n == 0  # too few


def test_calculations_decide_by_their_number(claim_of: Callable[..., Claim], check: Check) -> None:
    one = check(metric={"calculation": "c", "number": "a"}, of=None, against=None, expect="equal", margin=1e-10)
    claim = claim_of(one, {**one, "expect": "higher", "than": 1}, study=None)
    assert (claim.study, claim.calculations) == ("", ["c"])
    found = judge(claim, None, {"c": {"a": 1e-12}})
    assert [(a.verdict, a.low == a.high, a.n) for a in found.answers] == [(S, True, 1), (C, True, 1)]
    assert found.answers[1].number == pytest.approx(1e-12)  # as it is, not minus 1
    assert found.verdict("as_stated") == C
    assert judge(claim, None, {}).answers[0].remarks == "not calculated yet: normbench claims --run helps"
    assert judge(claim_of(), None, {}).answers[0].remarks == "no runs yet: normbench run experiment=first"


def test_the_setting_that_a_claim_was_tested_in(add: Add, judged: Callable[..., Judged], check: Check) -> None:
    """What all runs share, not what they are usually like; and whether an lr was chosen."""
    for lr in (0.1, 0.3):
        for norm in ("none", "batch"):
            path = add(norm=norm, lr=lr, max_steps=300, options={"dataset.train_fraction": 0.02}) / "config.yaml"
            path.write_text(path.read_text() + "total_steps: 300\n")
    usual = "MLP, MNIST, 300 updates, Adam, batch size 64, "
    assert judged(check()).setting == f"{usual}train fraction 0.02, each at its own best lr"
    assert judged(check(of={"norm": "batch", "lr": 0.1})).setting == f"{usual}lr 0.1, train fraction 0.02"
