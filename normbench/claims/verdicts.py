"""Answering a claim from the runs of its study: which runs, the number of each seed, and the verdict from them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from normbench.analysis.best_lr import Choice, choose
from normbench.analysis.groups import Groups, show
from normbench.analysis.selection import format_filter, has
from normbench.analysis.statistics import estimate, median_interval
from normbench.claims.claim import Check, Claim
from normbench.claims.metrics import NEITHER, Calculation, Correlate, Filter, Number, apart

SUPPORTED, CONTRADICTED, UNDECIDED, INCONCLUSIVE = "supported", "contradicted", "undecided", "inconclusive"
# Okabe and Ito's colours, distinct under every common colour blindness; the marks say the same without them.
MARKS = {SUPPORTED: ("✓", "#0072B2"), CONTRADICTED: ("✗", "#D55E00"), UNDECIDED: ("…", "#CC79A7")}
MARKS |= {INCONCLUSIVE: ("?", "#7F7F7F")}
ENOUGH = 3  # pairs without any spread, from which on the number itself decides
FEWEST = 3  # to correlate
Calculated = Mapping[str, Mapping[str, float | list[float]]]  # by calculation, its numbers; lists: measured again


class NoAnswer(ValueError):
    """A check can't be made with these runs. The message says why."""


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


def verdict(expect: str, limits: Sequence[float], low: float, high: float) -> str:
    """What an interval of effects says of what is expected; an end may be infinite.

    higher: supported if all of it is at or above the margin, contradicted if all is below; lower: the mirror image;
    equal: supported if all is within the margin, contradicted if all is beyond it on one side. Otherwise inconclusive.
    """
    low, high = round(low, 12), round(high, 12)  # 0.945 - 0.94 is less than 0.005
    first, last = round(limits[0], 12), round(limits[-1], 12)
    if expect == "higher":
        return SUPPORTED if low >= first else CONTRADICTED if high < first else INCONCLUSIVE
    if expect == "lower":
        return SUPPORTED if high <= first else CONTRADICTED if low > first else INCONCLUSIVE
    if first <= low and high <= last:
        return SUPPORTED
    return CONTRADICTED if low > last or high < first else INCONCLUSIVE


def combined(verdicts: Collection[str]) -> str:
    """The verdict on a statement that needs all of its checks: one that is contradicted contradicts it."""
    if set(verdicts) == {SUPPORTED}:
        return SUPPORTED
    return next((word for word in (CONTRADICTED, UNDECIDED) if word in verdicts), INCONCLUSIVE)


def _answer(claim: Claim, check: Check, groups: Groups | None, calculated: Calculated) -> Answer:
    if isinstance(check.metric, Calculation):
        value = calculated.get(check.calculation, {}).get(check.metric.number)
        if value is None:
            return Answer(check, remarks=f"not calculated yet: normbench claims --run {claim.id}")
        values = value if isinstance(value, list) else [value]
        found = {i: apart(Number(each), Number(check.than), check.ratio) for i, each in enumerate(values)}
        return decide(check, found, [], claim.level)
    if groups is None:
        return Answer(check, remarks=f"no runs yet: normbench run experiment={claim.study}")
    try:
        return decide(check, *effects(groups, check), claim.level)
    except NoAnswer as error:
        return Answer(check, remarks=str(error))


def decide(check: Check, found: Mapping[Any, Number], remarks: list[str], level: float) -> Answer:
    """The verdict from one number per seed, by its Student t interval or, where it is exact, by the number itself.

    Where a run never gets there its number is a bound, and the interval is that of the median (`median_interval`).
    """
    known = {seed: each for seed, each in found.items() if each.value is not None}
    sizes = {seed: math.log(each.value or 0.0) if check.ratio else each.value or 0.0 for seed, each in known.items()}
    values = {seed: check.shown(size) for seed, size in sizes.items()}
    estimated, bounds = estimate(list(sizes.values()), level), {each.bound for each in known.values()} - {0}
    if estimated is None:
        return Answer(check, remarks="; ".join(remarks))
    middle, low, high = estimated.mean, estimated.low, estimated.high
    same = max(sizes.values()) - min(sizes.values()) <= 1e-12 * (1 + abs(middle))
    exact = not bounds and ((same and estimated.n >= ENOUGH) or (bool(check.calculation) and estimated.n == 1))
    if bounds:
        open_ended = [each.bound * math.inf if each.bound else sizes[seed] for seed, each in known.items()]
        middle, interval = estimated.median, median_interval(open_ended, level)
        low, high = interval or (None, None)
        words = "interval of the median, whatever the distribution" if interval else (
            f"some never get there: an interval takes {math.ceil(1 - math.log2(1 - level))} seeds"
        )  # fmt: skip
        remarks = [*remarks, words]
    elif exact:
        low = high = middle
    elif same:
        low = None
    if low is None or high is None:
        return Answer(check, values=values, number=check.shown(middle), remarks="; ".join(remarks))
    if isinstance(check.metric, Correlate) and not check.against:  # of which there is none beyond 1
        low, high = max(low, -1.0 - check.than), min(high, 1.0 - check.than)
    word = verdict(check.expect, check.limits, low, high)
    if any(EDGE in words for words in remarks) and not check.any_lr:
        word = UNDECIDED
    ends = [check.shown(end) if math.isfinite(end) else end for end in (low, high)]
    return Answer(check, word, values, check.shown(middle), ends[0], ends[1], exact, "; ".join(remarks))


EDGE = "the best lr lies at the edge"  # how `Choice.edge` begins


def effects(groups: Groups, check: Check) -> tuple[dict[Any, Number], list[str]]:
    """A number for each seed, `of` against `against` or the number `than`; and what a reader has to know of the runs.

    Raises: NoAnswer.
    """
    ours, remarks = _numbers(groups, check, check.of)
    if check.against is None:
        found = {seed: apart(value, Number(check.than), check.ratio) for seed, value in ours.items()}
    else:
        theirs, more = _numbers(groups, check, check.against)
        remarks += more
        found = {seed: apart(ours[seed], theirs[seed], check.ratio) for seed in ours if seed in theirs}
        if alone := set(ours) ^ set(theirs):
            remarks.append(f"no partner for seed {', '.join(sorted(map(str, alone)))}")
    lost = Counter(each.note for each in found.values() if each.value is None)
    named = " ".join(remarks)
    return found, remarks + [f"{n} {note}: no pair" for note, n in lost.items() if note not in named]


def _numbers(groups: Groups, check: Check, only: Filter) -> tuple[dict[Any, Number], list[str]]:
    """One side: a number for each seed, and what became of runs that are not simply complete."""
    metric = check.metric
    parts = metric.value if isinstance(metric, Correlate) else (metric,)
    found_choices = chosen(groups, only, check.over)
    notes: Counter[str] = Counter()
    found: dict[Any, Number] = {}
    for seed in dict.fromkeys(run.seed for choice in found_choices for run in choice.shown.members):
        members = [next((run for run in choice.shown.members if run.seed == seed), None) for choice in found_choices]
        values = [[part.of(run) if run else Number(None, "missing") for run in members] for part in parts]
        notes.update(note for of_run in zip(*values, strict=True) for note in {v.note for v in of_run} if note)
        found[seed] = _correlation(*values) if isinstance(metric, Correlate) else _mean(values[0])
    words = [f"{n} of {len(found) * len(found_choices)} {note}" for note, n in notes.items()]
    if "lr" in groups.varying and not {"lr"} & {*only, *check.over}:
        several = isinstance(metric, Correlate)
        words.append("lr " + ", ".join(dict.fromkeys(
            f"{choice.scheme} " * several + show(choice.lr) + (f" ({choice.edge})" if choice.edge else "")
            for choice in found_choices
        )))  # fmt: skip
    return found, [f"{format_filter(only)}: {', '.join(words)}"] if words else []


def chosen(groups: Groups, only: Filter, over: Collection[str] = ()) -> list[Choice]:
    """What a filter leaves: the runs that differ in the seed alone, or those for each value of the options `over`.

    Where the filter leaves several lrs, each has that with the highest validation accuracy; lrs that diverge are last.

    Args:
        over: "norm" stands for the schemes, with their options.

    Raises: NoAnswer: none, or several that differ in another option.
    """
    by_lr: dict[tuple[Any, ...], dict[float, Any]] = defaultdict(dict)
    best = not {"lr"} & {*only, *over}
    for group in groups.groups:
        if has(group.values, only):
            rest = [item for item in group.setting if not (best and item[0] == "lr")]
            by_lr[group.scheme, *rest][float(group.values.get("lr") or 0.0)] = group
    if not by_lr:
        raise NoAnswer(f"no run has {format_filter(only)}")
    firsts = [next(iter(found.values())).values for found in by_lr.values()]
    inside = [key for key in firsts[0] if key.startswith("norm.") and key.count(".") == 1]
    for key in ("norm", *inside, *groups.varying):
        values = dict.fromkeys(show(first.get(key)) for first in firsts)
        wanted = key in over or (best and key == "lr") or ("norm" in over and key.partition(".")[0] == "norm")
        if len(values) > 1 and not wanted:
            there = ", ".join(values)
            raise NoAnswer(f"{format_filter(only)} leaves {key} open: {there}. Name one, or average (mean_over)")
    return [choose(key[1:], key[0], found) for key, found in by_lr.items()]


def _mean(numbers: Sequence[Number]) -> Number:
    """Over the groups of a seed; without one of them there is none."""
    if lost := [each for each in numbers if each.value is None]:
        return lost[0]
    bounds = {each.bound for each in numbers} - {0}
    if len(bounds) > 1:
        return Number(None, NEITHER)
    return Number(sum(each.value or 0.0 for each in numbers) / len(numbers), bound=sum(bounds))


def _correlation(a: Sequence[Number], b: Sequence[Number]) -> Number:
    """Spearman's, of ranks; equal values share their mean rank; a run that never gets there is behind all."""
    pairs = pd.DataFrame([[x.value for x in a], [y.value for y in b]], dtype=float).T.dropna()
    if len(pairs) < FEWEST:
        return Number(None, f"only {len(pairs)} to correlate")
    if (pairs.nunique() == 1).any():
        return Number(None, "no spread to correlate")
    ranks = pairs.rank()
    return Number(float(ranks[0].corr(ranks[1])))
