"""Estimates, comparisons, adjusted p values and power, by hand, against scipy and by simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normbench.analysis.statistics import (
    Estimate,
    compare,
    estimate,
    holm,
    interquartile_mean,
    power,
    power_of_equivalence,
    seeds_needed,
    verdict,
)

T2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # 97.5% quantile of Student's t, in closed form for 2 degrees of freedom
patient = settings(deadline=None)


def test_interval_of_three_values_by_hand() -> None:
    found = estimate([1.0, 2.0, 6.0])
    half = T2 * math.sqrt(7.0) / math.sqrt(3.0)  # s^2 = (4 + 1 + 9) / 2
    assert found is not None
    assert (found.n, found.mean, found.median, found.iqm) == (3, 3.0, 2.0, 3.0)
    assert (found.low, found.high, found.half_width) == pytest.approx((3.0 - half, 3.0 + half, half), abs=1e-9)


def test_one_seed_has_no_interval_and_values_are_finite() -> None:
    found = estimate([0.9])
    assert found == Estimate(1, 0.9, 0.9, 0.9, None, None)
    assert found.half_width is None
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite values"):
            estimate([0.9, bad])


@pytest.mark.parametrize("n", [3, 10])
def test_the_interval_covers_what_it_says(n: int) -> None:
    found = [estimate(values) for values in np.random.default_rng(0).normal(size=(1000, n))]
    covered = sum(e is not None and e.low is not None and e.high is not None and e.low <= 0 <= e.high for e in found)
    assert 930 <= covered <= 970


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 20])
def test_the_interquartile_mean_is_that_of_rliable(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-12)


def test_three_pairs_by_hand() -> None:
    found = compare([0.92, 0.95, 0.92], [0.90, 0.92, 0.91], 0.005)  # differences 0.02, 0.03, 0.01
    half = T2 * 0.01 / math.sqrt(3)
    # With 2 degrees of freedom P(T < t) = 1/2 + t / (2 sqrt(2 + t^2)), and t = 2 sqrt(3) or 1.5 sqrt(3) for TOST.
    p, p_equivalent = 1 - math.sqrt(12 / 14), 0.5 + math.sqrt(6.75 / 8.75) / 2
    assert found == pytest.approx(
        {"n": 3, "difference": 0.02, "sd": 0.01, "low": 0.02 - half, "high": 0.02 + half, "p": p,
         "p_equivalent": p_equivalent, "correlation": math.sqrt(3) / 2},  # deviations (-1, 2, -1) and (-1, 1, 0)
        abs=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("n", [2, 3, 10, 30])
def test_against_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    b = rng.normal(0.9, 0.01, n)
    a = b + rng.normal(0.002, 0.004, n)
    found, of_scipy = compare(a.tolist(), b.tolist(), 0.005), stats.ttest_rel(a, b)
    one_sided = (
        stats.ttest_1samp(a - b, -0.005, alternative="greater").pvalue,
        stats.ttest_1samp(a - b, 0.005, alternative="less").pvalue,
    )
    assert (found["p"], found["p_equivalent"]) == pytest.approx((of_scipy.pvalue, max(one_sided)), abs=1e-9)
    assert (found["low"], found["high"]) == pytest.approx(of_scipy.confidence_interval(), abs=1e-9)
    assert found["correlation"] == (None if n == 2 else pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9))


def test_what_pairs_cannot_tell_is_left_open() -> None:
    assert set(compare([], [], 0.005).values()) == {0, None}
    one = compare([0.9], [0.8], 0.005)
    assert (one["n"], one["difference"], one["low"], one["p"]) == (1, pytest.approx(0.1), None, None)
    same = compare([0.92, 0.94, 0.93], [0.90, 0.92, 0.91], 0.005)  # differ in the last bit: no proof
    assert (same["sd"], same["low"], same["p"], same["p_equivalent"]) == (0.0, None, None, None)
    assert verdict(same["difference"], same["p"], same["p_equivalent"]) == "inconclusive"
    assert compare([0.1135] * 3, [0.1135] * 3, 0.005)["correlation"] is None
    for values, reference, margin, words in (
        ([0.9, 0.8], [0.9], 0.005, "two finite values"),
        ([math.nan], [0.9], 0.005, "two finite values"),
        ([0.9], [0.9], 0.0, "margin"),
    ):
        with pytest.raises(ValueError, match=words):
            compare(values, reference, margin)


ACCURACY = st.integers(0, 10_000).map(lambda images: images / 10_000)
PAIRS = st.lists(st.tuples(ACCURACY, ACCURACY), min_size=2, max_size=12)


@patient
@given(PAIRS, st.integers(-5_000, 5_000))
def test_the_other_way_round_turns_the_sign_and_adding_to_both_changes_nothing(
    pairs: list[tuple[float, float]], images: int
) -> None:
    a, b = np.array(pairs).T
    found, turned, shifted = (
        compare(x + by, y + by, 0.005) for x, y, by in ((a, b, 0.0), (b, a, 0.0), (a, b, images / 10_000))
    )

    same = {name: found[name] for name in ("n", "sd", "p", "p_equivalent")}
    assert same == pytest.approx({name: turned[name] for name in same}, abs=1e-12)
    assert same == pytest.approx({name: shifted[name] for name in same}, abs=1e-6)
    assert found["difference"] == -turned["difference"] == pytest.approx(shifted["difference"], abs=1e-9)
    if found["low"] is not None:
        assert (found["low"], found["high"]) == pytest.approx((-turned["high"], -turned["low"]), abs=1e-12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert (holm([]), holm([None])) == ([], [None])


@patient
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_raises_p_keeps_their_order_and_ignores_that_of_the_list(values: list[float], random: Any) -> None:
    adjusted = holm(values)
    assert all(adj is not None and p <= adj <= 1 for p, adj in zip(values, adjusted, strict=True))
    by_p = [adj for _, adj in sorted(zip(values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
    places = random.sample(range(len(values)), len(values))
    assert sorted(holm([values[i] for i in places])) == by_p


@pytest.mark.parametrize(
    ("difference", "p", "p_equivalent", "word"),
    [
        (0.01, 0.04, 0.9, "better"),
        (-0.01, 0.04, 0.9, "worse"),
        (0.001, 0.5, 0.01, "equivalent"),
        (0.001, 0.001, 0.01, "equivalent"),  # different, and by less than matters
        (0.01, 0.05, 0.05, "inconclusive"),
        (0.01, None, None, "inconclusive"),
        (None, None, None, None),
    ],
)
def test_verdicts(difference: float | None, p: float | None, p_equivalent: float | None, word: str | None) -> None:
    assert verdict(difference, p, p_equivalent) == word


def test_verdicts_err_as_seldom_as_they_say() -> None:
    """Four schemes as good as the reference, then four just at the margin: a false verdict in 5% of tables at most."""
    rng = np.random.default_rng(1)
    for truth, false in ((0.0, ("better", "worse")), (0.005, ("equivalent",))):
        wrong = 0
        for _ in range(300):
            reference = rng.normal(0.9, 0.01, 5)
            rows = [compare(reference + truth + rng.normal(0, 0.002, 5), reference, 0.005) for _ in range(4)]
            columns = (
                [row["difference"] for row in rows],
                *(holm([row[p] for row in rows]) for p in ("p", "p_equivalent")),
            )
            wrong += any(verdict(*row) in false for row in zip(*columns, strict=True))
        assert wrong <= 0.05 * 300 + 2 * math.sqrt(300 * 0.05 * 0.95)


@pytest.mark.parametrize("n", [2, 5, 50])
@pytest.mark.parametrize("effect", [0.0, 0.3, 4.0])
@pytest.mark.parametrize("level", [0.05, 0.05 / 15])
def test_power_is_that_of_the_noncentral_t(n: int, effect: float, level: float) -> None:
    t, shift = stats.t.isf(level / 2, n - 1), effect * math.sqrt(n)
    with np.errstate(divide="ignore"):  # scipy 1.11 to 1.13 divide by zero on their way
        expected = stats.nct.sf(t, n - 1, shift) + np.nan_to_num(stats.nct.cdf(-t, n - 1, shift))  # NaN where it is 0
    assert power(effect, n, level) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("difference", "sd", "n"), [(0.001, 0.003, 5), (0.0, 0.003, 4)])
def test_power_of_equivalence_by_simulation(difference: float, sd: float, n: int) -> None:
    values = np.random.default_rng(0).normal(difference, sd, (1000, n))
    seen = np.mean([compare(row, np.zeros(n), 0.005)["p_equivalent"] < 0.05 for row in values])
    share = power_of_equivalence(difference / sd, 0.005 / sd, n)
    assert seen == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / 1000))


def test_seeds_for_a_difference() -> None:
    assert seeds_needed(0.02, 0.01, 0.005, 0.05, 0.05) == 5
    assert power(2, 5) >= 0.8 > power(2, 4)
    assert seeds_needed(0.004, 0.02, 0.005, 0.05, 0.05) is None  # beside the margin: not for seeds to settle
