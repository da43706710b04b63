"""How many seeds a comparison takes: the power of the paired t test and of the test of equivalence."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtrit

MOST, POWER = 50, 0.8


def power(effect: float, n: int, level: float = 0.05) -> float:
    """Chance that a two-sided paired t test of n pairs finds a difference of `effect` standard deviations of pairs.

    P(|T| > t) for the noncentral t with n - 1 degrees of freedom and noncentrality effect * sqrt(n), as the mean over
    the standard deviation s that a sample may show (1,000 quantiles of the chi distribution; good to 1e-4) of
    Phi(nc - t s) + Phi(-nc - t s). (scipy.special.nctdtr gives NaN far from the middle.)
    """
    t, shift = float(stdtrit(n - 1, 1 - level / 2)), effect * math.sqrt(n)
    spread = _spreads(n - 1)
    return float((ndtr(shift - t * spread) + ndtr(-shift - t * spread)).mean())


def power_of_equivalence(effect: float, margin: float, n: int, level: float = 0.05) -> float:
    """Chance that TOST within `margin` passes at a true difference `effect`, both in standard deviations of pairs."""
    t, shift = float(stdtrit(n - 1, 1 - level)), effect * math.sqrt(n)
    room = np.maximum(margin * math.sqrt(n) - t * _spreads(n - 1), 0.0)  # where the mean may lie for both tests to pass
    return float((ndtr(room - shift) - ndtr(-room - shift)).mean())


def seeds_needed(difference: float, sd: float, margin: float, level: float, level_equivalent: float) -> int | None:
    """The fewest pairs that reach a verdict with a chance of 80%, were the true difference and spread those observed.

    Either verdict counts: different (two-sided at `level`) or equivalent (TOST at `level_equivalent`). None if more
    than 50 pairs are needed.
    """
    for n in range(2, MOST + 1):
        if power(difference / sd, n, level) >= POWER:
            return n
        if power_of_equivalence(difference / sd, margin / sd, n, level_equivalent) >= POWER:
            return n
    return None


@cache
def _spreads(degrees: int) -> np.ndarray:
    """Quantiles of sqrt(chi^2 / degrees), in the middle of 1,000 equal shares."""
    shares = (np.arange(1000) + 0.5) / 1000
    return np.sqrt(2 * gammaincinv(degrees / 2, shares) / degrees)
