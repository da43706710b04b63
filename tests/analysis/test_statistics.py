"""Estimates, comparisons, adjusted p values and power, by hand, against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from normbench.analysis.statistics import (
    Comparison,
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


def test_interval_of_three_values_by_hand() -> None:
    found = estimate([1.0, 2.0, 6.0])
    half = T2 * math.sqrt(7.0) / math.sqrt(3.0)  # s^2 = (4 + 1 + 9) / 2
    assert found is not None
    assert (found.n, found.mean, found.median, found.iqm) == (3, 3.0, 2.0, 3.0)
    assert found.low == pytest.approx(3.0 - half, abs=1e-9)
    assert found.high == pytest.approx(3.0 + half, abs=1e-9)
    assert found.half_width == pytest.approx(half, abs=1e-9)


def test_one_seed_has_no_interval() -> None:
    found = estimate([0.9])
    assert found == Estimate(1, 0.9, 0.9, 0.9, None, None)
    assert found.half_width is None
    assert found.overlaps(Estimate(3, 0.9, 0.9, 0.9, 0.8, 1.0)) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="Leave diverged runs out"):
        estimate([0.9, bad])


@pytest.mark.parametrize(("low", "high", "meet"), [(0.9, 1.1, True), (0.4, 0.5, True), (1.01, 2.0, False)])
def test_overlap(low: float, high: float, meet: bool) -> None:
    one, other = Estimate(2, 0.75, 0.75, 0.75, 0.5, 1.0), Estimate(2, (low + high) / 2, 0.0, 0.0, low, high)
    assert one.overlaps(other) is meet
    assert other.overlaps(one) is meet


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_covers_what_it_says(n: int) -> None:
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(size=n).tolist()) for _ in range(1000)]
    covered = sum(e is not None and e.low is not None and e.high is not None and e.low <= 0 <= e.high for e in found)
    assert 930 <= covered <= 970


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 20])
def test_the_interquartile_mean_is_that_of_rliable(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-12)


def test_three_pairs_by_hand() -> None:
    found = compare([0.92, 0.95, 0.92], [0.90, 0.92, 0.91], 0.005)  # differences 0.02, 0.03, 0.01
    error = 0.01 / math.sqrt(3)
    assert (found.n, found.difference, found.sd) == (3, pytest.approx(0.02, abs=1e-9), pytest.approx(0.01, abs=1e-9))
    assert found.low == pytest.approx(0.02 - T2 * error, abs=1e-9)
    assert found.high == pytest.approx(0.02 + T2 * error, abs=1e-9)
    # With 2 degrees of freedom P(T < t) = 1/2 + t / (2 sqrt(2 + t^2)), and t = 2 sqrt(3) or 1.5 sqrt(3) for TOST.
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-9)
    assert found.p_equivalent == pytest.approx(0.5 + math.sqrt(6.75 / 8.75) / 2, abs=1e-9)
    assert found.correlation == pytest.approx(math.sqrt(3) / 2, abs=1e-9)  # deviations (-1, 2, -1) and (-1, 1, 0)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_against_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    b = rng.normal(0.9, 0.01, n)
    a = b + rng.normal(0.002, 0.004, n)
    found = compare(a.tolist(), b.tolist(), 0.005)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=1e-9)
    one_sided = (
        stats.ttest_1samp(a - b, -0.005, alternative="greater").pvalue,
        stats.ttest_1samp(a - b, 0.005, alternative="less").pvalue,
    )
    assert found.p_equivalent == pytest.approx(max(one_sided), abs=1e-9)
    assert (found.low, found.high) == pytest.approx(stats.ttest_rel(a, b).confidence_interval(), abs=1e-9)
    assert found.correlation == (None if n == 2 else pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9))


def test_what_few_pairs_cannot_tell_is_left_open() -> None:
    assert compare([], [], 0.005) == Comparison(0)
    assert compare([0.9], [0.8], 0.005) == Comparison(1, pytest.approx(0.1))


def test_the_same_difference_in_every_pair_is_no_proof() -> None:
    found = compare([0.92, 0.94, 0.93], [0.90, 0.92, 0.91], 0.005)  # differ in the last bit
    assert (found.sd, found.low, found.p, found.p_equivalent) == (0.0, None, None, None)
    assert verdict(found.difference, found.p, found.p_equivalent) == "inconclusive"
    assert compare([0.1135] * 3, [0.1135] * 3, 0.005).correlation is None


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="two finite values"):
        compare([0.9, 0.8], [0.9], 0.005)
    with pytest.raises(ValueError, match="two finite values"):
        compare([math.nan], [0.9], 0.005)
    with pytest.raises(ValueError, match="margin"):
        compare([0.9], [0.9], 0.0)


ACCURACY = st.integers(0, 10_000).map(lambda images: images / 10_000)
PAIRS = st.lists(st.tuples(ACCURACY, ACCURACY), min_size=2, max_size=12)


@given(PAIRS)
def test_the_other_way_round_turns_the_sign_alone(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    ours, theirs = compare(a, b, 0.005), compare(b, a, 0.005)
    assert ours.difference == -theirs.difference  # type: ignore[operator]
    assert (ours.n, ours.p, ours.sd) == (theirs.n, theirs.p, theirs.sd)
    assert ours.p_equivalent == pytest.approx(theirs.p_equivalent, abs=1e-12)
    if ours.low is not None:
        assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low), abs=1e-12)  # type: ignore[operator]


@given(PAIRS, st.integers(-5_000, 5_000))
def test_adding_to_both_changes_nothing(pairs: list[tuple[float, float]], images: int) -> None:
    a, b = np.array(pairs).T
    found, shifted = (compare(a + by, b + by, 0.005) for by in (0.0, images / 10_000))
    assert found.difference == pytest.approx(shifted.difference, abs=1e-9)
    assert found.sd == pytest.approx(shifted.sd, abs=1e-9)
    assert (found.p is None) == (shifted.p is None)
    if found.p is not None:
        assert found.p == pytest.approx(shifted.p, abs=1e-6)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([]) == []
    assert holm([None]) == [None]


P = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(P, st.randoms())
def test_holm_raises_p_keeps_their_order_and_ignores_that_of_the_list(values: list[float], random: object) -> None:
    adjusted = holm(values)
    assert all(p <= a <= 1 for p, a in zip(values, adjusted, strict=True))  # type: ignore[operator]
    by_size = [a for _, a in sorted(zip(values, adjusted, strict=True))]  # type: ignore[type-var]
    assert by_size == sorted(by_size)  # type: ignore[type-var]
    places = list(range(len(values)))
    random.shuffle(places)  # type: ignore[attr-defined]
    assert sorted(holm([values[i] for i in places])) == sorted(adjusted)  # type: ignore[type-var]
    assert dict(zip(values, adjusted, strict=True)) == dict(
        zip([values[i] for i in places], holm([values[i] for i in places]), strict=True)
    )


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
        for _ in range(500):
            reference = rng.normal(0.9, 0.01, 5)
            found = [compare(reference + truth + rng.normal(0, 0.002, 5), reference, 0.005) for _ in range(4)]
            ps, equivalent = holm([c.p for c in found]), holm([c.p_equivalent for c in found])
            words = [
                verdict(c.difference, *pair) for c, pair in zip(found, zip(ps, equivalent, strict=True), strict=True)
            ]
            wrong += any(word in false for word in words)
        assert wrong <= 0.05 * 500 + 2 * math.sqrt(500 * 0.05 * 0.95)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("level", [0.05, 0.05 / 15])
def test_power_is_that_of_the_noncentral_t(n: int, effect: float, level: float) -> None:
    t, shift = stats.t.isf(level / 2, n - 1), effect * math.sqrt(n)
    expected = stats.nct.sf(t, n - 1, shift) + np.nan_to_num(stats.nct.cdf(-t, n - 1, shift))  # NaN where it is 0
    assert power(effect, n, level) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("difference", "sd", "n"), [(0.02, 0.01, 5), (0.001, 0.003, 5), (0.0, 0.003, 4)])
def test_power_by_simulation(difference: float, sd: float, n: int) -> None:
    rng = np.random.default_rng(0)
    found = [compare(rng.normal(difference, sd, n), np.zeros(n), 0.005) for _ in range(2000)]
    expected = {
        "different": power(difference / sd, n),
        "equivalent": power_of_equivalence(difference / sd, 0.005 / sd, n),
    }
    seen = {
        "different": np.mean([c.p < 0.05 for c in found]),  # type: ignore[operator]
        "equivalent": np.mean([c.p_equivalent < 0.05 for c in found]),  # type: ignore[operator]
    }
    for which, share in expected.items():
        assert seen[which] == pytest.approx(share, abs=3 * math.sqrt(max(share * (1 - share), 1e-4) / 2000))


def test_seeds_for_a_difference() -> None:
    needed = seeds_needed(0.02, 0.01, 0.005, 0.05, 0.05)
    assert needed == 5
    assert power(2, 5) >= 0.8 > power(2, 4)


def test_a_difference_beside_the_margin_is_not_for_seeds_to_settle() -> None:
    assert seeds_needed(0.004, 0.02, 0.005, 0.05, 0.05) is None
