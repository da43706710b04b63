from __future__ import annotations

import math

import numpy as np
import pytest

from normbench.report.statistics import Estimate, estimate

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


def test_nothing_gives_nothing() -> None:
    assert estimate([]) is None


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
