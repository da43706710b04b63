from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from normbench.analysis.statistics import compare, power, power_of_equivalence, seeds_needed


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
@pytest.mark.parametrize("effect", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("level", [0.05, 0.05 / 15])
def test_power_is_that_of_the_noncentral_t(n: int, effect: float, level: float) -> None:
    t, shift = stats.t.isf(level / 2, n - 1), effect * math.sqrt(n)
    expected = stats.nct.sf(t, n - 1, shift) + np.nan_to_num(stats.nct.cdf(-t, n - 1, shift))  # NaN where it is 0
    assert power(effect, n, level) == pytest.approx(expected, abs=1e-4)


def test_what_the_number_of_seeds_was_chosen_from() -> None:
    """Fifteen comparisons under Holm: six standard deviations at three seeds, four at five."""
    assert power(6, 3, 0.05 / 15) == pytest.approx(0.304, abs=1e-3)
    assert power(4, 5, 0.05 / 15) == pytest.approx(0.897, abs=1e-3)


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


def test_seeds_for_equivalence() -> None:
    needed = seeds_needed(0.0, 0.005, 0.005, 0.05, 0.05)
    assert needed is not None
    assert power_of_equivalence(0, 1, needed) >= 0.8 > power_of_equivalence(0, 1, needed - 1)


def test_a_difference_beside_the_margin_is_not_for_seeds_to_settle() -> None:
    assert seeds_needed(0.004, 0.02, 0.005, 0.05, 0.05) is None


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_an_inconclusive_comparison_always_needs_more_seeds_than_it_has(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(200):
        found = compare(rng.normal(0.003, 0.004, n), np.zeros(n), 0.005)
        if found.p is not None and found.p >= 0.05 and found.p_equivalent is not None and found.p_equivalent >= 0.05:
            assert found.difference is not None
            assert found.sd is not None
            assert (seeds_needed(found.difference, found.sd, 0.005, 0.05, 0.05) or 51) > n
