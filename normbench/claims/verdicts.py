"""Answering a claim from the runs of its study: which runs, the number of each seed, and the verdict from them."""

from __future__ import annotations

import logging
import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

from normbench.analysis.best_lr import Choice, choices, choose, decisive_seeds
from normbench.analysis.comparisons import FIRST, FRESH
from normbench.analysis.groups import STATUSES, Group, Groups, label, show
from normbench.analysis.reproduce import again_words
from normbench.analysis.selection import format_filter, has
from normbench.analysis.statistics import MOST, estimate, median_interval, seeds_to_leave_limits
from normbench.claims.claim import Check, Claim
from normbench.claims.metrics import Calculation, Filter, Metric, Values, compared
from normbench.runs import Run

SUPPORTED, SMALL, CONTRADICTED = "supported", "true but small", "contradicted"
DEPENDS, UNDECIDED = "it depends", "undecided"
# Okabe and Ito's colours, distinct under every common colour blindness; the marks say the same without them.
MARKS = {SUPPORTED: ("✓", "#0072B2"), SMALL: ("≈", "#009E73"), CONTRADICTED: ("✗", "#D55E00")}
MARKS |= {DEPENDS: ("±", "#CC79A7"), UNDECIDED: ("?", "#7F7F7F")}
ENOUGH = 3  # pairs without any spread, from which on the number itself decides
NAMES = {
    "mlp": "MLP", "mlp_deep": "deep MLP", "cnn": "CNN", "convpool_c": "ConvPool-CNN-C", "vgg11": "VGG-11",
    "resnet": "ResNet", "rnn": "RNN", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100", "mnist1d": "MNIST-1D", "sgd": "SGD", "adam": "Adam",
}  # fmt: skip
# What the setting says otherwise, or does not depend on.
APART: tuple[str, ...] = ("model", "dataset", "norm", "max_steps", "max_samples", "epochs", "seed")
APART += ("evaluations", "study", "device", "threads", "jobs")
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
        seeds_needed: how many further seeds decide it with a chance of 80%; None where it is not for seeds to decide.
        needs: what would decide it: "6 more seeds".
        sweeps: the words of the sweeps that run what is needed; `seconds`: how long that takes one core.
    """

    check: Check
    verdict: str = UNDECIDED
    values: Mapping[Any, float] = field(default_factory=dict)
    number: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    remarks: str = ""
    seeds_needed: int | None = None
    needs: str = ""
    sweeps: Sequence[Sequence[str]] = ()
    seconds: float | None = None

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def measured(self) -> str:
        """Such as "-57.1 points (-61.2 to -53, n = 5)"."""
        if not self.n:
            return "no number"
        text, low, high = (
            "open" if end is None else self.check.text(end) for end in (self.number, self.low, self.high)
        )
        interval = "no interval" if self.low is None else "exact" if self.low == self.high else f"{low} to {high}"
        unit = f" {self.check.unit}" * bool(self.check.unit)
        return f"{text}{unit} ({interval}, n = {self.n})"

    @property
    def room(self) -> float:
        """How far inside of what is expected the interval ends, in halves of its width; negative: how far it misses.

        Infinite where there is no spread.
        """
        if self.low is None or self.high is None:
            return -math.inf
        low, high = map(self.check.effect_of, (self.low, self.high))
        first, last = self.check.limits[0], self.check.limits[-1]
        inside = {"higher": low - first, "lower": first - high, "equal": min(low - first, last - high)}
        half = (high - low) / 2
        found = inside[self.check.expect]
        return (0.0 if math.isinf(half) else found / half) if half else math.copysign(math.inf, found)


@dataclass(frozen=True)
class Judged:
    """A claim with the answer of each of its checks.

    Args:
        setting: of the runs that they are from.
        state: why there is none: "not run", "out of date".
    """

    claim: Claim
    answers: tuple[Answer, ...]
    setting: str = ""
    state: str = ""

    def of(self, statement: str) -> list[Answer]:
        return [answer for answer in self.answers if statement in answer.check.answers]

    def verdict(self, statement: str) -> str:
        """What a textbook says in general may hold in one setting and not in another; our own sentence names both."""
        word = self.state or combined([answer.verdict for answer in self.of(statement)])
        return DEPENDS if word == CONTRADICTED and statement == "as_stated" and self._opposed else word

    def deciding(self, statement: str) -> list[Answer]:
        """The check that the verdict rests on; two where it depends.

        Of a supported statement the weakest; of a contradicted one the clearest of those that refute it; of an
        undecided one, of those that are open, the one that takes most to decide.
        """
        word = self.verdict(statement)
        if word == DEPENDS:
            return self._opposed
        found = [answer for answer in self.of(statement) if answer.verdict == word]
        cost = {id(answer): math.inf if answer.seconds is None else answer.seconds for answer in found}
        return sorted(found, key=lambda a: -cost[id(a)] if word == UNDECIDED else a.room)[:1]

    def why(self, statement: str) -> str:
        """How a verdict came about: "1 supported, 1 undecided", or the settings on which it depends."""
        if self.verdict(statement) == DEPENDS:
            a, b = (answer.check.of for answer in self._opposed)
            holds, fails = (format_filter({k: v for k, v in one.items() if v != other.get(k)})
                            for one, other in ((a, b), (b, a)))  # fmt: skip
            return f"{SUPPORTED} at {holds}, {CONTRADICTED} at {fails}"
        verdicts = Counter(answer.verdict for answer in self.of(statement))
        return ", ".join(f"{verdicts[word]} {word}" for word in MARKS if word in verdicts)

    @property
    def _opposed(self) -> list[Answer]:
        """Two checks of the sentence as stated that ask the same of two settings, of which one is contradicted."""
        answers = self.of("as_stated")
        holds = [answer for answer in answers if answer.verdict == SUPPORTED]
        fails = [answer for answer in answers if answer.verdict == CONTRADICTED]
        pairs = [[a, b] for b in fails for a in holds if _question(a.check) == _question(b.check)]
        return pairs[0] if pairs else []


def _question(check: Check) -> tuple[Any, ...]:
    """What it asks, of whatever runs."""
    other = {key: value for key, value in (check.against or {}).items() if check.of.get(key) != value}
    return check.metric, check.expect, check.margin, check.than, check.scale, other


def judge(claim: Claim, groups: Groups | None, calculated: Calculated) -> Judged:
    """Answer every check of a claim. `groups`: the runs of its study; None: there are none."""
    answers = tuple(_answer(claim, check, groups, calculated) for check in claim.checks)
    return Judged(claim, answers, claim.setting if groups is None else setting_of(claim, groups))


def setting_of(claim: Claim, groups: Groups) -> str:
    """What the runs behind a claim share: "MLP, MNIST, 20,000 images, SGD, batch size 64, each at its own best lr"."""
    filters = [only for check in claim.checks for only in check.filters]
    used = [group for group in groups.groups if any(has(group.values, only) for only in filters)]
    members = [run for group in used for run in group.members]
    typed = [word.partition("=")[0].lstrip("+") for run in members for word in run.words]
    keys = dict.fromkeys(("model", "dataset", "optimizer", "batch_size", "lr", *typed))
    by_key = {key: {show(group.values.get(key)): group.values.get(key) for group in used} for key in keys}
    shared = {key: next(iter(values.values())) for key, values in by_key.items() if len(values) == 1}
    rest = tuple(
        (key, NAMES.get(str(value), value))
        for key, value in shared.items()
        if value is not None and key not in APART and not key.startswith(("instruments", "norm."))
    )
    words = [NAMES.get(str(shared[key]), str(shared[key])) for key in ("model", "dataset") if key in shared]
    words += [" or ".join(dict.fromkeys(map(_budget, members)))] * bool(members)
    words += [label(rest)] * bool(rest)
    if "lr" not in shared and any("lr" not in only for only in filters):
        words.append("each at its own best lr")
    return ", ".join(words)


def _budget(run: Run) -> str:
    """How long it trains: "20,000 images", "300 updates", "60 epochs"."""
    for key, unit in (("max_steps", "update"), ("max_samples", "image"), ("epochs", "epoch")):
        if (n := run.config.get(key)) is not None:
            return f"{n:,.12g} {unit}{'' if n == 1 else 's'}"
    return ""


def verdict(expect: str, limits: Sequence[float], low: float, high: float) -> str:
    """What an interval of effects says of what is expected; an end may be infinite.

    higher: supported if all of it is at or above the margin, true but small if all is below it and above 0,
    contradicted if all is below it otherwise; lower: the mirror image; equal: supported if all is within the margin,
    contradicted if all is beyond it on one side. Undecided in all other cases.
    """
    low, high = round(low, 12), round(high, 12)  # 0.945 - 0.94 is less than 0.005
    first, last = round(limits[0], 12), round(limits[-1], 12)
    if expect == "lower":
        return verdict("higher", [-last], -high, -low)
    if expect == "higher":
        return SUPPORTED if low >= first else UNDECIDED if high >= first else SMALL if low > 0 else CONTRADICTED
    if first <= low and high <= last:
        return SUPPORTED
    return CONTRADICTED if low > last or high < first else UNDECIDED


def combined(verdicts: Collection[str]) -> str:
    """The verdict on a statement that needs all of its checks: one that is contradicted contradicts it."""
    if not verdicts:
        return UNDECIDED
    return next(word for word in (CONTRADICTED, UNDECIDED, SMALL, SUPPORTED) if word in verdicts)


def _answer(claim: Claim, check: Check, groups: Groups | None, calculated: Calculated) -> Answer:
    """`decide`; where that breaks, such as at a damaged table, the answer says so and the report goes on."""
    try:
        if isinstance(check.metric, Calculation):
            return decide(check, claim.level, [dict(enumerate(_numbers(check.metric, claim, calculated)))])
        if groups is None:
            raise NoAnswer(f"no runs yet: normbench run experiment={claim.study}")
        sides = [chosen(groups, only, check.several) for only in check.filters]
        every = [choice for found in sides for choice in found]
        seeds, tried = decisive_seeds(*every)
        shown = [[choice.shown.with_seeds(seeds) for choice in found] for found in sides]
        remarks = [_remarks(check.metric, *side) for side in zip(check.filters, sides, shown, strict=True)]
        values, at_edge = [check.metric.of_all(of_side) for of_side in shown], any(choice.edge for choice in every)
        if isinstance(check.times, Calculation):  # their spread becomes part of that of the seeds
            factors = cycle(_numbers(check.times, claim, calculated))
            values[0] = {
                seed: factor * value for factor, (seed, value) in zip(factors, values[0].items(), strict=False)
            }
        return _settled(decide(check, claim.level, values, remarks, tried, at_edge), every)
    except NoAnswer as error:
        return Answer(check, remarks=str(error))
    except Exception as error:
        logging.getLogger(__name__).exception("claim %s could not be answered", claim.id)
        return Answer(check, remarks=f"could not be answered: {type(error).__name__}: {error}")


def _numbers(metric: Calculation, claim: Claim, calculated: Calculated) -> list[float]:
    """What was calculated, once or several times. Raises NoAnswer."""
    found = calculated.get(metric.value, {}).get(metric.number)
    if found is None:
        raise NoAnswer(f"not calculated yet: normbench claims --run {claim.id}")
    return found if isinstance(found, list) else [found]


def _settled(answer: Answer, every: Sequence[Choice]) -> Answer:
    """With the sweeps that would decide an open check: the lr beyond the edge, or seeds that no run has had."""
    if answer.verdict != UNDECIDED:
        return answer
    edges = [] if answer.check.any_lr else [choice for choice in every if choice.edge]
    if edges:
        needs = ", ".join(dict.fromkeys(f"lr={show(choice.beyond)} of {choice.scheme}" for choice in edges))
        sweeps, counts = [words for c in edges for words in c.further_words], [(c.shown, len(c.on)) for c in edges]
    elif answer.seeds_needed is None:
        return answer
    else:
        first, n = max(seed for choice in every for seed in choice.seeds) + 1, answer.seeds_needed
        needs = f"{n} more seed{'' if n == 1 else 's'}"
        sweeps = again_words([c.shown.members[0] for c in every], seed=range(first, first + n))
        counts = [(choice.shown, n) for choice in every]
    times = [(group.numbers("seconds.total").values(), n) for group, n in counts]
    seconds = sum(n * statistics.mean(found) for found, n in times if found)
    return replace(answer, needs=needs, sweeps=sweeps, seconds=seconds or None)


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
    on_fresh, level = level, level if check.any_lr else 1 - (1 - level) / tried
    a, b = sides if check.against else (*sides, dict.fromkeys(sides[0], check.than))
    found, said = compared(a, b, check.ratio), [words for words in remarks if words]
    if alone := sorted(map(str, set(a) ^ set(b))):
        said.append(f"no pair for seed {', '.join(alone)}")
    if lost := len(set(a) & set(b)) - len(found):
        said.append(f"{lost} pairs without a {check.scale}")
    sizes = [check.effect(value) for value in found.values()]
    low: float | None
    high: float | None
    enough: int | None = None  # seeds that decide, of those that count
    if any(map(math.isinf, sizes)):
        middle = statistics.median(sizes)
        low, high = median_interval(sizes, level) or (None, None)
        fewest = math.ceil(1 - math.log2(1 - level))
        said.append(f"some never get there: an interval takes {fewest} seeds" if low is None else
                    "interval of the median, whatever the distribution")  # fmt: skip
        enough = fewest if low is None else None
    elif estimated := estimate(sizes, level):
        middle, low, high = estimated.mean, estimated.low, estimated.high
        if max(sizes) - min(sizes) <= 1e-12 * (1 + abs(middle)):
            low = high = middle if len(sizes) >= ENOUGH or check.calculation else None
            enough = FIRST
        else:
            enough = seeds_to_leave_limits(middle, statistics.stdev(sizes), check.limits, on_fresh)
    else:
        return Answer(check, remarks="; ".join(said))
    word = UNDECIDED
    if low is not None and high is not None:
        if check.several and not check.against:  # there is no correlation beyond 1
            low, high = max(low, -1.0 - check.than), min(high, 1.0 - check.than)
        word = UNDECIDED if at_edge and not check.any_lr else verdict(check.expect, check.limits, low, high)
        low, high = check.shown(low), check.shown(high)
    number = check.shown(middle) if math.isfinite(middle) else None
    values = {seed: check.shown(size) for seed, size in zip(found, sizes, strict=True)}
    more, needs = None, ""
    if word == UNDECIDED and not check.calculation:
        # fresh seeds count alone where others have chosen the lr, and are added to those that are there otherwise
        more = None if enough is None else max(enough, FRESH) if tried > 1 else max(1, enough - len(sizes))
        needs = f"more than {MOST} seeds" if more is None and low is not None else ""
    return Answer(check, word, values, number, low, high, level, "; ".join(said), more, needs)
