"""Answering a claim from the runs of its study: which runs, the number of each seed, and the verdict from them."""

from __future__ import annotations

import logging
import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from normbench.analysis.best_lr import Choice, choices, choose, decisive_seeds
from normbench.analysis.groups import STATUSES, Group, Groups, label, show
from normbench.analysis.selection import format_filter, has
from normbench.analysis.statistics import estimate, median_interval
from normbench.claims.claim import Check, Claim
from normbench.claims.metrics import Calculation, Filter, Metric, Values, compared

SUPPORTED, CONTRADICTED, UNDECIDED, INCONCLUSIVE = "supported", "contradicted", "undecided", "inconclusive"
# Okabe and Ito's colours, distinct under every common colour blindness; the marks say the same without them.
MARKS = {SUPPORTED: ("✓", "#0072B2"), CONTRADICTED: ("✗", "#D55E00"), UNDECIDED: ("…", "#CC79A7")}
MARKS |= {INCONCLUSIVE: ("?", "#7F7F7F")}
ENOUGH = 3  # pairs without any spread, from which on the number itself decides
Calculated = Mapping[str, Mapping[str, float | list[float]]]  # by calculation, its numbers; lists: measured again


class NoAnswer(ValueError):
    """A check can't be made with these runs. The message says why."""


@dataclass(frozen=True)
class Answer:
    """What one check found. Numbers are as shown: differences, factors, or the metric itself; infinite ends are open.

    Args:
        values: by seed.
        number: their mean; with an interval of the median the median, None where that is infinite.
        low, high: the interval; both are the number where there is no spread, or it was calculated once.
        level: the confidence of the interval.
        remarks: runs without a number, and what kind of numbers the others have.
    """

    check: Check
    verdict: str = INCONCLUSIVE
    values: Mapping[Any, float] = field(default_factory=dict)
    number: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    remarks: str = ""

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def measured(self) -> str:
        """Such as "-0.57 (-0.61 to -0.53, n = 5)"."""
        if not self.n:
            return "no number"
        text, low, high = (
            "open" if end is None else self.check.text(end) for end in (self.number, self.low, self.high)
        )
        interval = "no interval" if self.low is None else "exact" if self.low == self.high else f"{low} to {high}"
        return f"{text} ({interval}, n = {self.n})"


@dataclass(frozen=True)
class Judged:
    """A claim with the answer of each of its checks; `setting`: of the runs that they are from."""

    claim: Claim
    answers: tuple[Answer, ...]
    setting: str = ""

    def of(self, statement: str) -> list[Answer]:
        return [answer for answer in self.answers if statement in answer.check.answers]

    def verdict(self, statement: str) -> str:
        return combined([answer.verdict for answer in self.of(statement)])

    def counted(self, statement: str) -> str:
        """How a verdict came about: "1 supported, 1 inconclusive"."""
        verdicts = Counter(answer.verdict for answer in self.of(statement))
        return ", ".join(f"{verdicts[word]} {word}" for word in MARKS if word in verdicts)


def judge(claim: Claim, groups: Groups | None, calculated: Calculated) -> Judged:
    """Answer every check of a claim. `groups`: the runs of its study; None: there are none."""
    answers = tuple(_answer(claim, check, groups, calculated) for check in claim.checks)
    return Judged(claim, answers, "" if groups is None else setting_of(claim, groups))


def setting_of(claim: Claim, groups: Groups) -> str:
    """What the runs behind a claim share, in a line: "mlp, mnist, sgd, batch size 64, 312 updates, ..."."""
    filters = [only for check in claim.checks for only in check.filters]
    used = [group for group in groups.groups if any(has(group.values, only) for only in filters)]
    members = [run for group in used for run in group.members]
    typed = [word.partition("=")[0].lstrip("+") for run in members for word in run.words]
    keys = dict.fromkeys(("model", "dataset", "optimizer", "batch_size", "lr", *typed))
    shared = tuple((key, groups.constant[key]) for key in keys if key in groups.constant and key != "max_steps")
    updates = sorted({n for run in members if (n := run.record.get("total_steps")) is not None})
    words = [label(shared)]
    if updates:
        words.append(" to ".join(f"{n:,}" for n in dict.fromkeys((updates[0], updates[-1]))) + " updates")
    if "lr" in groups.varying and any("lr" not in only for only in filters):
        words.append(
            f"each at its own best lr of {', '.join(map(show, sorted({run.config['lr'] for run in members})))}"
        )
    return ", ".join(words)


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
    """`decide`; where that breaks, such as at a damaged table, the answer says so and the report goes on."""
    try:
        if isinstance(check.metric, Calculation):
            found = calculated.get(check.calculation, {}).get(check.metric.number)
            if found is None:
                raise NoAnswer(f"not calculated yet: normbench claims --run {claim.id}")
            return decide(check, claim.level, [dict(enumerate(found if isinstance(found, list) else [found]))])
        if groups is None:
            raise NoAnswer(f"no runs yet: normbench run experiment={claim.study}")
        sides = [chosen(groups, only, check.several) for only in check.filters]
        every = [choice for found in sides for choice in found]
        seeds, tried = decisive_seeds(*every)
        shown = [[choice.shown.with_seeds(seeds) for choice in found] for found in sides]
        remarks = [_remarks(check.metric, *side) for side in zip(check.filters, sides, shown, strict=True)]
        values, at_edge = [check.metric.of_all(of_side) for of_side in shown], any(choice.edge for choice in every)
        return decide(check, claim.level, values, remarks, tried, at_edge)
    except NoAnswer as error:
        return Answer(check, remarks=str(error))
    except Exception as error:
        logging.getLogger(__name__).exception("claim %s could not be answered", claim.id)
        return Answer(check, remarks=f"could not be answered: {type(error).__name__}: {error}")


def _remarks(metric: Metric, only: Filter, found: Sequence[Choice], shown: Sequence[Group]) -> str:
    """What became of the runs of one side that are not simply complete, or have no number; and which lr they have."""
    words: list[str] = []
    for choice, group in zip(found, shown, strict=True):
        notes = {status: group.count(status) for status in STATUSES[1:]}
        parts = [part.of(group) for part in metric.parts]
        notes["without the number"] = len(group.seeds("complete") - set.intersection(*map(set, parts)))
        notes["never gets there"] = len({seed for part in parts for seed, n in part.items() if math.isinf(n)})
        name = f"{choice.scheme} " * (len(found) > 1)
        words += [f"{name}{n} of {len(group.members)} {note}" for note, n in notes.items() if n]
        if choice.chosen:
            words.append(f"{name}lr {show(choice.lr)}" + (f" ({choice.edge})" if choice.edge else ""))
    return f"{format_filter(only)}: {', '.join(words)}" if words else ""


def chosen(groups: Groups, only: Filter, several: bool = False) -> list[Choice]:
    """The runs that a filter leaves: those of one scheme in one setting, which differ in the seed alone.

    Where it leaves several lrs, a scheme has that with the highest validation accuracy; lrs that diverge are last.

    Args:
        several: schemes, each with a choice of its own.

    Raises: NoAnswer: none, or they differ in another option.
    """
    found = [
        choose(setting, scheme, kept)
        for setting, by_scheme in choices(groups).items()
        for scheme, choice in by_scheme.items()
        if (kept := {lr: group for lr, group in choice.groups.items() if has(group.values, only)})
    ]
    if not found:
        raise NoAnswer(f"no run has {format_filter(only)}")
    if len({choice.setting for choice in found} if several else found) > 1:
        there = "; ".join(f"{choice.scheme} ({label(choice.setting)})" for choice in found)
        raise NoAnswer(f"{format_filter(only)} leaves more than the lr and the seed open: {there}")
    return found


def decide(
    check: Check,
    level: float,
    sides: Sequence[Values],
    remarks: Sequence[str] = (),
    tried: int = 1,
    at_edge: bool = False,
) -> Answer:
    """The verdict from one effect per seed, by its Student t interval or, without any spread, by the number itself.

    Where a run never gets there its number is infinite, and the interval is that of the median (`median_interval`).

    Args:
        level: confidence of the interval.
        sides: the numbers, and those that they are compared with; alone, they are compared with `than`.
        tried: among how many lrs the same seeds have chosen: the best of several looks better than it is, so that
            confidence rises to 1 - (1 - level) / tried.
        at_edge: a best lr lies at the edge of those tried.
    """
    level = level if check.any_lr else 1 - (1 - level) / tried
    a, b = sides if check.against else (*sides, dict.fromkeys(sides[0], check.than))
    found, said = compared(a, b, check.ratio), [words for words in remarks if words]
    if alone := sorted(map(str, set(a) ^ set(b))):
        said.append(f"no pair for seed {', '.join(alone)}")
    if lost := len(set(a) & set(b)) - len(found):
        said.append(f"{lost} pairs without a {check.scale}")
    sizes = [check.effect(value) for value in found.values()]
    low: float | None
    high: float | None
    if any(map(math.isinf, sizes)):
        middle = statistics.median(sizes)
        low, high = median_interval(sizes, level) or (None, None)
        fewest = math.ceil(1 - math.log2(1 - level))
        said.append(f"some never get there: an interval takes {fewest} seeds" if low is None else
                    "interval of the median, whatever the distribution")  # fmt: skip
    elif estimated := estimate(sizes, level):
        middle, low, high = estimated.mean, estimated.low, estimated.high
        if max(sizes) - min(sizes) <= 1e-12 * (1 + abs(middle)):
            low = high = middle if len(sizes) >= ENOUGH or check.calculation else None
    else:
        return Answer(check, remarks="; ".join(said))
    word = INCONCLUSIVE
    if low is not None and high is not None:
        if check.several and not check.against:  # there is no correlation beyond 1
            low, high = max(low, -1.0 - check.than), min(high, 1.0 - check.than)
        word = UNDECIDED if at_edge and not check.any_lr else verdict(check.expect, check.limits, low, high)
        low, high = check.shown(low), check.shown(high)
    number = check.shown(middle) if math.isfinite(middle) else None
    values = {seed: check.shown(size) for seed, size in zip(found, sizes, strict=True)}
    return Answer(check, word, values, number, low, high, level, "; ".join(said))
