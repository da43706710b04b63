"""Answering a claim from the runs of its study: supported | contradicted | mixed | inconclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from normbench.analysis.groups import Groups
from normbench.analysis.statistics import estimate
from normbench.claims.arms import NoAnswer, effects
from normbench.claims.claim import Check, Claim
from normbench.claims.grammar import kind
from normbench.claims.metrics import Number, apart
from normbench.claims.verdicts import INCONCLUSIVE, combined, verdict

ENOUGH = 3  # pairs without any spread, from which on the number itself decides
Calculated = Mapping[str, Mapping[str, float | list[float]]]  # by calculation, its numbers; lists: measured again


@dataclass(frozen=True)
class Answer:
    """What one check found. Numbers are as shown: differences, factors, or the metric itself; infinite ends are open.

    Args:
        values: by seed.
        exact: without spread, or calculated once: there is no interval, the number itself decides.
        remarks: runs without a number, and what kind of numbers the others have.
    """

    check: Check
    verdict: str = INCONCLUSIVE
    values: Mapping[Any, float] = field(default_factory=dict)
    number: float | None = None
    low: float | None = None
    high: float | None = None
    exact: bool = False
    remarks: str = ""

    @property
    def n(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Judged:
    """A claim with the answer of each of its checks."""

    claim: Claim
    answers: tuple[Answer, ...]

    def of(self, statement: str) -> list[Answer]:
        return [answer for answer in self.answers if statement in answer.check.answers]

    def verdict(self, statement: str) -> str:
        return combined([answer.verdict for answer in self.of(statement)])


def judge(claim: Claim, groups: Groups | None, calculated: Calculated) -> Judged:
    """Answer every check of a claim. `groups`: the runs of its study; None: there are none."""
    return Judged(claim, tuple(_answer(claim, check, groups, calculated) for check in claim.checks))


def _answer(claim: Claim, check: Check, groups: Groups | None, calculated: Calculated) -> Answer:
    if check.calculation:
        value = calculated.get(check.calculation, {}).get(check.metric["number"])  # type: ignore[index]
        if value is None:
            return Answer(check, remarks=f"not calculated yet: normbench claims --run {claim.id}")
        values = value if isinstance(value, list) else [value]
        found = {i: apart(Number(each), Number(check.than), check.ratio) for i, each in enumerate(values)}
        return decided(check, found, level=claim.level)
    if groups is None:
        return Answer(check, remarks=f"no runs yet: normbench run experiment={claim.study}")
    try:
        return decided(check, *effects(groups, check), level=claim.level)
    except NoAnswer as error:
        return Answer(check, remarks=str(error))


def decided(check: Check, found: Mapping[Any, Number], remarks: Sequence[str] = (), level: float = 0.95) -> Answer:
    """The verdict from one number per seed: that of its Student t interval, or of the number itself where it is exact.

    The effect of a run that never gets there is a bound, so that the interval is open on that side.
    """
    sizes = {
        seed: math.log(each.value) if check.ratio else each.value
        for seed, each in found.items()
        if each.value is not None
    }
    words = "; ".join(remarks)
    estimated = estimate(list(sizes.values()), level)
    if estimated is None:
        return Answer(check, remarks=words)
    values, middle = {seed: check.shown(size) for seed, size in sizes.items()}, estimated.mean
    same = max(sizes.values()) - min(sizes.values()) <= 1e-12 * (1 + abs(middle))
    exact = (same and estimated.n >= ENOUGH) or (bool(check.calculation) and estimated.n == 1)
    low, high = (middle, middle) if exact else (estimated.low, estimated.high)
    if low is None or high is None or (same and not exact):
        return Answer(check, values=values, number=check.shown(middle), remarks=words)
    if kind(check.metric) == "correlate" and not check.against:  # of which there is none beyond 1
        low, high = max(low, -1.0 - check.than), min(high, 1.0 - check.than)
    bounds = {each.bound for seed, each in found.items() if seed in sizes}
    low, high = -math.inf if -1 in bounds else low, math.inf if 1 in bounds else high
    ends = [check.shown(end) if math.isfinite(end) else end for end in (low, high)]
    word = verdict(check.expect, check.limits, low, high)
    return Answer(check, word, values, check.shown(middle), ends[0], ends[1], exact, words)
