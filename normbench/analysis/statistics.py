"""Numbers over seeds: estimates, paired comparisons, adjusted p values, and how many seeds a verdict takes.

`scipy.special` has the distributions; `scipy.stats`, which has the same tests, takes three seconds to import, and the
tests check these functions against it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.special import bdtr, gammaincinv, ndtr, stdtr, stdtrit

LEVEL = 0.05
MOST, POWER = 50, 0.8  # pairs that are planned at most, and the chance of a verdict that they are planned for
COMPARED = ("difference", "low", "high", "sd", "correlation", "p", "p_equivalent")  # of pairs, besides their number n


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds; `low` and `high` bound its interval, None where one seed alone gives none."""

    n: int
    mean: float
    median: float
    iqm: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.high is None else self.high - self.mean


def estimate(values: Sequence[float], confidence: float = 1 - LEVEL) -> Estimate | None:
    """Mean with its Student t interval, mean ± t(n - 1) * s / sqrt(n), median and IQM; None without values.

    Student's t rather than a bootstrap: on normal data it covers 94-95% at n = 3, 5 and 10, BCa 70, 83 and 90%.

    Raises:
        ValueError: a value is not finite. Diverged runs have no accuracy: count them, don't average them.
    Source: Student 1908, Biometrika 6.
    """
    x = np.asarray(values, dtype=float)
    if not np.isfinite(x).all():
        raise ValueError(
            f"an estimate needs finite values, got {list(values)}. Leave diverged runs out and count them."
        )
    if len(x) == 0:
        return None
    mean, median, iqm = float(x.mean()), float(np.median(x)), interquartile_mean(x)
    if len(x) == 1:
        return Estimate(1, mean, median, iqm)
    half = _half_width(x, confidence)
    return Estimate(len(x), mean, median, iqm, mean - half, mean + half)


def estimate_accuracy(values: Sequence[float], tried: int = 1) -> Estimate | None:
    """`estimate`, its interval cut at 0 and 1: no accuracy lies beyond.

    Args:
        tried: among how many such means this one was chosen with the same seeds, see `compare`.
    """
    found = estimate(values, 1 - LEVEL / tried)
    if found is None or found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval [x_(k), x_(n + 1 - k)] of a median, whatever the distribution; values may be infinite.

    k is the largest with P(B < k) <= (1 - confidence) / 2, B binomial with n trials and chance 1/2; None where not even
    k = 1 has that: at 95% with fewer than 6 values. For times of which some are only known to be longer than the run
    (infinite), Student's interval has no lower end either: the longer they are, the further it reaches down.

    Source: David & Nagaraja 2003, Order Statistics, section 7.1.
    """
    x, n = np.sort(np.asarray(values, dtype=float)), len(values)
    k = sum(bdtr(below, n, 0.5) <= (1 - confidence) / 2 for below in range(n // 2))
    return (float(x[k - 1]), float(x[n - k])) if k else None


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of what is left when floor(n / 4) values are cut off at either end: of three values, the mean of all.

    Source: rliable (arXiv:2108.13264), scipy.stats.trim_mean(values, 0.25).
    """
    x = np.sort(np.asarray(values, dtype=float))
    cut = len(x) // 4
    return float(x[cut : len(x) - cut].mean())


def compare(values: Sequence[float], reference: Sequence[float], margin: float, tried: int = 1) -> dict[str, Any]:
    """Compare two sequences whose elements belong together: values[i] and reference[i] have the same seed.

    Returns the columns `n`, `difference` (the mean of values - reference), `low` and `high` (its 95% interval, not
    adjusted for other comparisons), `sd` of the differences, `correlation` of the pairs, `p` of the paired t test and
    `p_equivalent` of the test of equivalence; None is what n pairs can't give.

    With d = values - reference, m its mean and e = s / sqrt(n), t = m / e tests "no difference" (two-sided), and
    p_equivalent = max(P(T > (m + margin) / e), P(T < (m - margin) / e)) tests "margin or more apart" (TOST: two
    one-sided tests), T with n - 1 degrees of freedom.

    One pair has a difference and no spread. Where all pairs differ by the same amount there is none either: not
    evidence of p = 0, but accuracies that are counted in whole images; interval and tests are then None. The
    correlation needs three pairs (two always lie on a line) and some spread on either side.

    Args:
        tried: among how many candidates, such as lrs, the same seeds have chosen one of the two or both. The best of
            several looks better than it is; so the interval has confidence 1 - 0.05 / tried and p values are
            multiplied by it (Bonferroni): it then holds for all candidates at once, the chosen one included.

    Source: Student 1908, Biometrika 6; Schuirmann 1987, J. Pharmacokinet. Biopharm. 15; Dunn 1961, JASA 56.
    Raises:
        ValueError: sequences of different lengths, values that are not finite, a margin that is not positive.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if a.shape != b.shape or not np.isfinite([a, b]).all():
        raise ValueError(f"pairs need two finite values each, got {list(values)} and {list(reference)}.")
    if not margin > 0:
        raise ValueError(f"the margin of equivalence is above 0, got {margin}. 0.5 points are 0.005.")
    n, d = len(a), a - b
    found: dict[str, Any] = {"n": n} | dict.fromkeys(COMPARED)
    if n == 0:
        return found
    found["difference"] = mean = float(d.mean())
    if n > 2 and not _constant(a) and not _constant(b):
        of_a, of_b = a - a.mean(), b - b.mean()
        found["correlation"] = float(of_a @ of_b / math.sqrt((of_a @ of_a) * (of_b @ of_b)))
    if n > 1 and _constant(d, max(np.abs(a).max(), np.abs(b).max())):
        found["sd"] = 0.0
    elif n > 1:
        sd, half = float(d.std(ddof=1)), _half_width(d, 1 - LEVEL / tried)
        error = sd / math.sqrt(n)
        one_sided = [float(stdtr(n - 1, t / error)) for t in (-mean - margin, mean - margin)]
        found |= {"low": mean - half, "high": mean + half, "sd": sd}
        p_values = {"p": 2 * float(stdtr(n - 1, -abs(mean) / error)), "p_equivalent": max(one_sided)}
        found |= {name: min(1.0, tried * p) for name, p in p_values.items()}
    return found


def welch(values: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Compare two samples whose elements do not belong together: `difference` (of the means, values - reference), `low`
    and `high` (its 95% interval) and `p` (two-sided). These are None where a sample has fewer than two values, and
    where neither has a spread.

    With e_i = s_i^2 / n_i of either, t = difference / sqrt(e_1 + e_2) has (e_1 + e_2)^2 / sum_i e_i^2 / (n_i - 1)
    degrees of freedom.

    Source: Welch 1947, Biometrika 34.
    """
    a, b = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    found: dict[str, Any] = {"difference": float(a.mean() - b.mean()), "low": None, "high": None, "p": None}
    if min(len(a), len(b)) < 2 or (_constant(a) and _constant(b)):
        return found
    errors = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    degrees = sum(errors) ** 2 / sum(e * e / (len(x) - 1) for e, x in zip(errors, (a, b), strict=True))
    error, difference = math.sqrt(sum(errors)), found["difference"]
    half = float(stdtrit(degrees, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(degrees, -abs(difference) / error))
    return found | {"low": difference - half, "high": difference + half, "p": p}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted so that among them all the chance of one false rejection at 5% stays below 5%.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_j). None, a test that could not be made,
    stays None and does not count.

    Source: Holm 1979, Scand. J. Statist. 6.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = adjusted[i] = max(highest, min(1.0, (len(known) - rank) * p))
    return adjusted


def verdict(difference: float | None, p: float | None, p_equivalent: float | None, level: float = LEVEL) -> str | None:
    """better | worse | equivalent | inconclusive, from adjusted p values; None where there is no pair.

    Equivalence goes first: a difference that is shown to be smaller than the margin does not matter, even where it is
    also shown not to be 0.
    """
    if difference is None:
        return None
    if p_equivalent is not None and p_equivalent < level:
        return "equivalent"
    if p is not None and p < level:
        return "better" if difference > 0 else "worse"
    return "inconclusive"


def power(effect: float, n: int, level: float = 0.05) -> float:
    """Chance that a two-sided paired t test of n pairs finds a difference of `effect` standard deviations of pairs.

    P(|T| > t) for the noncentral t with n - 1 degrees of freedom and noncentrality effect * sqrt(n), as the mean over
    the standard deviation s that a sample may show (1,000 quantiles of the chi distribution; good to 1e-4) of
    Phi(nc - t s) + Phi(-nc - t s). (scipy's noncentral t gives NaN far from the middle.)
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
    return _fewest(
        lambda n: (
            power(difference / sd, n, level) >= POWER
            or power_of_equivalence(difference / sd, margin / sd, n, level_equivalent) >= POWER
        )
    )


def seeds_to_leave_limits(mean: float, sd: float, limits: Sequence[float], confidence: float) -> int | None:
    """The fewest seeds whose t interval holds no limit with a chance of 80%, were the true values those observed.

    It then lies on one side of the only limit; of two, -m and m, beyond one of them or between both. None if more than
    50 seeds are needed.
    """
    level, limit = 1 - confidence, limits[-1]
    if len(limits) == 1 or abs(mean) > limit:
        beyond = mean - limit if len(limits) == 1 else abs(mean) - limit
        return _fewest(lambda n: power(beyond / sd, n, level) >= POWER)
    return _fewest(lambda n: power_of_equivalence(mean / sd, limit / sd, n, level / 2) >= POWER)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The first of 2, 3, ... 50 that is enough: the more pairs, the more power."""
    plans = range(2, MOST + 1)
    place = bisect_left(plans, True, key=enough)
    return plans[place] if place < len(plans) else None


@cache
def _spreads(degrees: int) -> np.ndarray:
    """Quantiles of sqrt(chi^2 / degrees), in the middle of 1,000 equal shares."""
    shares = (np.arange(1000) + 0.5) / 1000
    return np.sqrt(2 * gammaincinv(degrees / 2, shares) / degrees)


def _half_width(x: np.ndarray, confidence: float) -> float:
    return float(stdtrit(len(x) - 1, 0.5 + confidence / 2)) * float(x.std(ddof=1)) / math.sqrt(len(x))


def _constant(x: np.ndarray, scale: float | None = None) -> bool:
    """All the same, but for rounding: 0.92 - 0.90 and 0.94 - 0.92 differ by 3e-17."""
    return bool(np.ptp(x) <= 1e-12 * (np.abs(x).max() if scale is None else scale))
