"""Each scheme at its own best learning rate, against a reference at its own; and how much the lr matters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.special import stdtrit

from normbench.analysis.comparisons import COLUMNS, FRESH, Comparison, Pair, compare_all, how_to_read, numbers
from normbench.analysis.groups import OVER, Group, Groups, Setting, show, without
from normbench.analysis.reproduce import again_words, as_command
from normbench.analysis.statistics import LEVEL, estimate_accuracy
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, number, percent, row_start, setting_columns

STEP = 10**0.5  # between the lrs of a grid, at most
NEAR = 0.01  # accuracy within one point of the best
MISSING = "Every scheme was run at one lr only. Runs at several, such as lr=0.01,0.1,1 after run -m, would supply it."


@dataclass(frozen=True, eq=False)
class Choice:
    """The lr of one scheme in one setting.

    Args:
        setting: all but the lr.
        groups: by lr, ascending.
        means: validation accuracy at each lr where a run is over, with a result or diverged: the grid; None where a
            run diverged.
        lr: the best; None where no run is over.
        on: seeds that were run at two lrs or more, which decide.
        fresh: seeds that `lr` alone has, with which it was not chosen; all of them where there was no choice.
    """

    setting: Setting
    scheme: str
    groups: dict[float, Group]
    means: dict[float, float | None]
    lr: float | None
    on: frozenset[Any]
    fresh: frozenset[Any]

    @property
    def grid(self) -> tuple[float, ...]:
        return tuple(self.means)

    @property
    def chosen(self) -> bool:
        """Whether there was a choice."""
        return len(self.means) > 1

    @cached_property
    def mean(self) -> float | None:
        """Validation accuracy at the best lr, of the seeds that chose it: a diverged run counts at chance."""
        if self.lr is None:
            return None
        found = self.shown.accuracies("validation_accuracy")
        values = [value for seed, value in found.items() if seed in self.on] or list(found.values())
        return sum(values) / len(values) if values else None

    @cached_property
    def accuracies(self) -> dict[Any, float]:
        """Seed -> test accuracy at the best lr: a diverged run counts at chance."""
        return self.shown.accuracies()

    @property
    def confirmed(self) -> bool:
        """Whether fresh seeds alone give its result: three or more, or all where there was no choice."""
        return not self.chosen or len(self.fresh) >= FRESH

    @property
    def decisive(self) -> Group:
        """Its runs that give the result: the fresh ones where there are enough, else all at the best lr."""
        return self.shown.with_seeds(self.fresh) if self.chosen and self.confirmed else self.shown

    @property
    def shown(self) -> Group:
        """The group at the best lr; without one the first, so that a table says what became of its runs."""
        return next(iter(self.groups.values())) if self.lr is None else self.groups[self.lr]

    @cached_property
    def seeds(self) -> frozenset[Any]:
        return frozenset[Any]().union(*(group.seeds() for group in self.groups.values()))

    @property
    def spent(self) -> frozenset[Any]:
        """Seeds that had a part in the choice."""
        return self.seeds - self.fresh if self.chosen else frozenset()

    @property
    def beyond(self) -> float | None:
        """The lr to add where the best lies at the end of those that are over: one that was begun there, or the next.

        A step of the grid away, at most a factor of about three, on the ladder 0.1, 0.3, 1, 3.
        """
        if self.lr is None or not self.chosen or self.lr not in (self.grid[0], self.grid[-1]):
            return None
        lowest = self.lr == self.grid[0]
        begun = [lr for lr in self.groups if (lr < self.lr if lowest else lr > self.lr)]
        if begun:
            return max(begun) if lowest else min(begun)
        step = self.grid[1] / self.lr if lowest else self.lr / self.grid[-2]
        following = self.lr * min(step, STEP) ** (-1 if lowest else 1)
        if step < 2.5:
            return float(f"{following:.2g}")
        ladder = (m * 10.0**e for e in range(-12, 12) for m in (1, 3))
        return float(f"{min(ladder, key=lambda lr: abs(math.log(lr / following))):.1g}")

    @property
    def edge(self) -> str:
        """Why nothing is decided at this lr; "" where lrs on both sides of it were tried, or one alone."""
        if (lr := self.beyond) is None:
            return ""
        return f"the best lr lies at the edge ({show(self.lr)}); add lr={show(lr)}"

    @property
    def further_words(self) -> list[list[str]]:
        """The sweep that tries the lr beyond the edge; none where there is no need."""
        if self.beyond is None:
            return []
        return again_words([self.shown.members[0]], lr=[show(self.beyond)], seed=sorted(self.on))

    @property
    def further(self) -> str:
        """`further_words` as a command."""
        return as_command(self.further_words)


Choices = Mapping[Setting, Mapping[str, Choice]]  # by setting without the lr, then by scheme


@lru_cache(maxsize=1)
def choices(groups: Groups) -> dict[Setting, dict[str, Choice]]:
    found: dict[Setting, dict[str, dict[float, Group]]] = defaultdict(lambda: defaultdict(dict))
    for group in groups.groups:
        found[without(group.setting, "lr")][group.scheme][float(group.values.get("lr") or 0.0)] = group
    return {
        setting: {name: choose(setting, name, by_scheme[name]) for name in groups.schemes if name in by_scheme}
        for setting, by_scheme in found.items()
    }


def choose(setting: Setting, scheme: str, groups: dict[float, Group]) -> Choice:
    """The lr with the smallest share of diverged runs, and among those the highest mean validation accuracy.

    An lr at which a run diverged is thus behind every one at which none did. Seeds that were run at one lr alone have
    no part in it: those of the best lr are fresh, and no winner's curse is on their mean. (Not the seeds that *all* lrs
    share: one run that failed would take its seed from the choice everywhere.)
    """
    groups = dict(sorted(groups.items()))
    over = {lr: seeds for lr, group in groups.items() if (seeds := group.seeds(*OVER))}
    every = [seed for seeds in over.values() for seed in seeds]
    on = frozenset(seed for seed in every if every.count(seed) > 1) or frozenset(every)
    means: dict[float, float | None] = {}
    ranks: dict[float, tuple[float, float]] = {}
    for lr, seeds in over.items():
        deciding = seeds & on or seeds
        found = groups[lr].numbers("validation_accuracy")
        values = [value for seed, value in found.items() if seed in deciding]
        mean = sum(values) / len(values) if values else None
        diverged = len(groups[lr].seeds("diverged") & deciding)
        means[lr] = None if diverged else mean
        ranks[lr] = (diverged / len(deciding), -(mean or 0.0))
    best = min(ranks, key=ranks.__getitem__, default=None)
    fresh = frozenset[Any]()
    if best is not None and len(over) == 1:
        fresh = on
    elif best is not None and over[best] & on:  # without any of them, its other seeds have had to decide
        fresh = frozenset(over[best] - on)
    return Choice(setting, scheme, groups, means, best, on, fresh)


def candidates(by_scheme: Mapping[str, Choice]) -> list[str]:
    """The schemes that may be the best, by the seeds that chose their lrs: those that are worth fresh seeds.

    Of k schemes and n seeds, those whose mean validation accuracy is at most t s sqrt(2 / n) below the highest: t is
    the quantile 1 - 0.05 / (k - 1) of Student's distribution with (k - 1)(n - 1) degrees of freedom, s^2 the mean
    square of what is left of the accuracies without the effects of scheme and seed. It is pooled, for three seeds say
    little of the spread of one scheme. A run that diverged counts at chance, and its scheme has no part in s. All
    schemes where there is no spread to go by.

    Source: Gupta 1965, Technometrics 7; Hsu 1996, Multiple Comparisons, section 4.1 (with blocks, here seeds).
    """
    values = {
        scheme: values for scheme, c in by_scheme.items() if (values := c.shown.accuracies("validation_accuracy"))
    }
    seeds = sorted(set.intersection(*map(set, values.values()))) if values else []
    table = {scheme: np.array([of_one[seed] for seed in seeds]) for scheme, of_one in values.items()}
    steady = np.array([row for scheme, row in table.items() if not by_scheme[scheme].shown.count("diverged")])
    if len(steady) < 2 or len(seeds) < 2:
        return list(values)
    rest = steady - steady.mean(0) - steady.mean(1, keepdims=True) + steady.mean()
    degrees = (len(steady) - 1) * (len(seeds) - 1)
    s = math.sqrt((rest**2).sum() / degrees)
    t = float(stdtrit(degrees, 1 - LEVEL / (len(table) - 1)))
    least = max(row.mean() for row in table.values()) - t * s * math.sqrt(2 / len(seeds))
    return [scheme for scheme, row in table.items() if row.mean() >= least]


def decisive_seeds(*choices: Choice) -> tuple[frozenset[Any], int]:
    """The seeds on which these are compared, each at its own best lr, and among how many lrs they have chosen.

    Fresh seeds alone where there are three or more that all were run with: then 1. Otherwise all but fresh seeds that
    some were not run with.
    """
    none = frozenset[Any]()
    spent, fresh, seeds = ([getattr(choice, name) for choice in choices] for name in ("spent", "fresh", "seeds"))
    if not any(choice.chosen for choice in choices):
        return none.union(*seeds), 1
    if len(frozenset.intersection(*fresh).difference(*spent)) >= FRESH:
        return none.union(*fresh).difference(*spent), 1
    alone = none.union(*fresh) - frozenset.intersection(*seeds)
    return none.union(*seeds) - alone, max(len(choice.means) for choice in choices)


def pair(ours: Choice, theirs: Choice | None) -> Pair:
    """Both at their own best lr, on the seeds that decide."""
    if theirs is None:
        return Pair(ours.setting, ours.shown, ours.shown.missing("the reference"))
    seeds, tried = decisive_seeds(ours, theirs)
    fresh = tried == 1 and (ours.chosen or theirs.chosen)
    arms = (ours.shown.with_seeds(seeds), theirs.shown.with_seeds(seeds))
    return Pair(ours.setting, *arms, fresh, tried, (ours, theirs))


@lru_cache(maxsize=1)
def compare_at_best_lr(groups: Groups, reference: str, margin: float) -> list[Comparison]:
    """Each scheme against the reference, each at its own best lr. Made once and shared: don't change it."""
    found = choices(groups).values()
    pairs = [(choice, by_scheme.get(reference)) for by_scheme in found for choice in by_scheme.values()]
    return compare_all([pair(ours, theirs) for ours, theirs in pairs if ours.scheme != reference], margin)


def several(chosen: Choices) -> bool:
    """Whether any scheme was run at more than one lr in any setting."""
    return any(len(choice.groups) > 1 for by_scheme in chosen.values() for choice in by_scheme.values())


def cells(groups: Groups) -> tuple[Mapping[Setting, Mapping[str, Group]], str]:
    """The runs that give the result of each scheme at its own best lr, by setting and scheme; and that in words."""
    found = {
        setting: {scheme: choice.decisive for scheme, choice in by_scheme.items()}
        for setting, by_scheme in choices(groups).items()
    }
    return found, ", each scheme at its own best lr"


def best_lr_table(groups: Groups, found: Sequence[Comparison], reference: str, margin: float) -> Table:
    """Test accuracy of each scheme at its own best lr, beside its comparison from `compare_at_best_lr`."""
    name, title = "own_lr", f"Against {reference}, each at its own best lr"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr"),
        Column("lr", "best lr", number("{:g}")),
        Column("lr_inside", "inside those tried", numeric=False),
        Column("seeds", "seeds", numeric=False),
        Column("test_mean", "test accuracy %", percent),
        Column("test_low", "95% from", percent),
        Column("test_high", "to", percent),
        Column("test_n", "n"),
        Column("reference_lr", f"lr of {reference}", number("{:g}")),
        *COLUMNS,
    ]
    chosen = choices(groups)
    if not several(chosen):
        return Table(name, title, "", columns, [], MISSING)
    compared = {(c["setting"], c["scheme"]): c for c in found}
    rows = []
    for setting, by_scheme in chosen.items():
        theirs = by_scheme.get(reference)
        for scheme, choice in by_scheme.items():
            c = compared.get((setting, scheme)) or _alone(choice, margin)
            tried = 1 if c["pair"].fresh else max(1, len(choice.means))
            test = estimate_accuracy(list(c["ours"].accuracies().values()), tried)
            rows.append(
                row_start(groups, scheme, setting)
                | {"lr": choice.lr, "reference_lr": theirs.lr if theirs else None, "validation_mean": choice.mean}
                | {"lr_inside": "one lr" if not choice.chosen else "no" if choice.edge else "yes"}
                | {"seeds": _seeds(choice, c["pair"]), "test_n": test.n if test else 0}
                | {f"test_{key}": getattr(test, key, None) for key in ("mean", "low", "high", "median", "iqm")}
                | numbers(c, reference)
            )
    caption = (
        "Each scheme at the lr with its highest mean validation accuracy (an lr at which a run diverged comes behind "
        "all others), and its test accuracy there; where the best is the smallest or the largest tried, nothing is "
        "decided. Three or more fresh seeds that were run at the best lr alone give the result by themselves. "
        "Without them the same seeds choose and are compared, and the best of several looks better than it is: "
        "intervals and p values then allow for the number of lrs tried (Bonferroni). "
        f"Differences: minus {reference} at the best lr of its own. {how_to_read(found, margin)}"
    )
    return Table(name, title, caption, columns, rows)


def _alone(choice: Choice, margin: float) -> Comparison:
    """What stands for the comparison of the reference, which is compared with nothing."""
    ours = choice.decisive
    [row] = compare_all([Pair(choice.setting, ours, ours.missing(""), choice.chosen and choice.confirmed)], margin)
    return row | {"n": None, "remarks": ""}


def _seeds(choice: Choice, pair: Pair) -> str:
    if not choice.chosen:
        return "one lr: nothing chosen" if choice.means else "none"
    if not pair.fresh:
        return "the same seeds chose the lr"
    seeds = sorted(pair.ours.seeds() | pair.theirs.seeds())
    unbroken = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return "fresh: " + (f"{seeds[0]}..{seeds[-1]}" if unbroken else ", ".join(map(str, seeds)))


def lr_table(groups: Groups) -> Table:
    """How much the lr matters: best, edge of the grid, width of the band that works."""
    name, title = "lr_stability", "How much the learning rate matters"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr"),
        Column("lrs", "lrs tried", numeric=False),
        Column("best_lr", "best lr", number("{:g}")),
        Column("validation_mean", "validation % there", percent),
        Column("band_text", "decades near the best of all", str, "band"),
        Column("own_band_text", "decades near its own best", str, "own_band"),
        Column("largest_stable_text", "largest stable lr", str, "largest_stable"),
        REMARKS,
        Column("command", "to look further", str, numeric=False),
    ]
    chosen = choices(groups)
    if not several(chosen):
        return Table(name, title, "", columns, [], MISSING)
    rows = []
    for setting, by_scheme in chosen.items():
        top = max((m for c in by_scheme.values() for m in c.means.values() if m is not None), default=None)
        rows += [row_start(groups, scheme, setting) | _lr_row(choice, top) for scheme, choice in by_scheme.items()]
    every = [choice for by_scheme in chosen.values() for choice in by_scheme.values()]
    runs = sum(len(choice.groups[lr].having(*OVER)) for choice in every for lr in choice.grid)
    caption = (
        f"Validation accuracy, mean over the seeds that were run at two lrs or more, from {runs} runs. "
        "Decades: "
        "log10(highest / lowest) of the unbroken row of lrs around a scheme's best whose means lie within one point of "
        "the best of all schemes in the setting, or of its own best; 0.0: one lr alone, –: none; ≥: the row ends where "
        "the lrs tried end. An lr at which a run diverged is in no band. Largest stable lr: no run there diverged or "
        "ended at chance. The wider, the less the lr needs tuning."
    )
    return Table(name, title, caption, columns, rows)


def band(choice: Choice, best: float | None) -> tuple[float, ...]:
    """The unbroken row of lrs around the scheme's best whose means lie within one point of `best`."""
    near = [m is not None and best is not None and m >= best - NEAR - 1e-12 for m in choice.means.values()]
    if choice.lr is None or not near[middle := choice.grid.index(choice.lr)]:
        return ()
    low = high = middle
    while low and near[low - 1]:
        low -= 1
    while high + 1 < len(near) and near[high + 1]:
        high += 1
    return choice.grid[low : high + 1]


def _lr_row(choice: Choice, top: float | None) -> dict[str, Any]:
    groups, words = choice.groups, []
    for lr, group in groups.items():
        counts = {"diverged": group.count("diverged"), "at chance": group.at_chance}
        words += [f"{n} of {len(group.members)} {what} at lr {lr:g}" for what, n in counts.items() if n]
        words += [] if lr in choice.means else [f"{group.members[0].status} at lr {lr:g}"]
    working = (g for lr in choice.grid if (g := groups[lr]).count("complete") - g.at_chance == len(g.members))
    stable = max((float(group.values["lr"]) for group in working), default=None)
    row: dict[str, Any] = {
        "lrs": ", ".join(show(lr) for lr in groups),
        "seeds": " ".join(str(seed) for seed in sorted(choice.on)),
        "best_lr": choice.lr,
        "validation_mean": choice.mean,
        "largest_stable": stable,
        "largest_stable_text": _at_least("{:g}", stable, stable in choice.grid[-1:]),
        "remarks": "; ".join([*([choice.edge] if choice.edge else []), *words]),
        "command": choice.further,
    }
    for name, lrs in (("band", band(choice, top)), ("own_band", band(choice, choice.mean))):
        width = math.log10(lrs[-1] / lrs[0]) if lrs else None
        ends = bool(lrs) and (lrs[0] == choice.grid[0] or lrs[-1] == choice.grid[-1])
        row |= {name: width, f"{name}_text": _at_least("{:.1f}", width, ends)}
    return row


def _at_least(pattern: str, value: float | None, more: bool) -> str:
    return "–" if value is None else ("≥ " if more else "") + pattern.format(value)
