"""Numbers over seeds: pure functions on plain sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds; `low` and `high` bound its interval, None where one seed alone gives none."""

    n: int
    mean: float
    median: float
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        return None if self.high is None else self.high - self.mean

    def overlaps(self, other: Estimate) -> bool | None:
        """Whether the two intervals share a value; None where one of them does not exist."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return None
        return self.low <= other.high and other.low <= self.high


def estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate | None:
    """Mean with its Student t interval, mean ± t(n - 1) * s / sqrt(n), and median; None without values.

    Student's t rather than a bootstrap: on normal data it covers 94-95% at n = 3, 5 and 10, BCa 70, 83 and 90%.

    Raises:
        ValueError: a value is not finite. Diverged runs have no accuracy: count them, don't average them.
    """
    x = np.asarray(values, dtype=float)
    if not np.isfinite(x).all():
        raise ValueError(
            f"an estimate needs finite values, got {list(values)}. Leave diverged runs out and count them."
        )
    if len(x) == 0:
        return None
    mean, median = float(x.mean()), float(np.median(x))
    if len(x) == 1:
        return Estimate(1, mean, median)
    t = float(stdtrit(len(x) - 1, 0.5 + confidence / 2))  # scipy.special: scipy.stats takes a second to import
    half = t * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Estimate(len(x), mean, median, mean - half, mean + half)
