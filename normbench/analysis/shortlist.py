"""Which schemes may be the best in each setting, each at its own best learning rate: in sentences and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

from normbench.analysis.best_lr import Choice, choices, decisive_seeds
from normbench.analysis.groups import Groups, Setting, label
from normbench.analysis.notes import interval_covers
from normbench.analysis.statistics import LEVEL, compare, estimate_accuracy
from normbench.analysis.tables import Column, Table, number, percent, points, setting_columns, setting_start

SCHEMES = 3  # from so many on there is something to recommend
IN_FULL, LISTED = 3, 12  # settings that have sentences of their own at most, and that one sentence names
CHEAPER = 0.95  # times the seconds of another scheme


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The schemes that may be the best in one setting.

    Args:
        setting: all but the lr.
        known: every scheme that has a result.
        names: of the schemes that may be the best (`may_be_best`); none where no run does better than chance, or where
            the best lr of the first scheme, or of the reference, lies at the edge of those tried.
        best: of these, or else of all, the one with the highest mean validation accuracy over the seeds that chose.
        fresh: whether there was a round of fresh seeds.
    """

    setting: Setting
    known: Mapping[str, Choice]
    reference: str
    names: Sequence[str]
    best: Choice
    fresh: bool

    @property
    def pool(self) -> dict[str, Choice]:
        """The schemes that can be compared: after a round of fresh seeds those in it."""
        return {scheme: choice for scheme, choice in self.known.items() if choice.confirmed or not self.fresh}

    @property
    def compared(self) -> dict[str, Choice]:
        """Of these, the schemes whose best lr lies inside the lrs tried."""
        return {scheme: choice for scheme, choice in self.pool.items() if not choice.edge}

    @property
    def at_chance(self) -> bool:
        """Whether no run does better."""
        return all(choice.shown.at_chance == choice.shown.count("complete") for choice in self.known.values())

    @property
    def decided_afresh(self) -> bool:
        """Whether fresh seeds give the numbers of the best scheme."""
        return self.best.chosen and self.best.confirmed

    @property
    def among(self) -> int:
        """From how many schemes and lrs the first one was chosen."""
        return sum(max(1, len(choice.means)) for choice in self.known.values())

    def numbers(self) -> dict[str, Any]:
        """Test accuracy of the best scheme, and what it gains on the reference, with 95% intervals.

        Student's where fresh seeds give them; where the same seeds chose and estimate, they hold for all schemes and
        lrs at once (Bonferroni).
        """
        test = estimate_accuracy(
            list(self.best.decisive.accuracies().values()), 1 if self.decided_afresh else self.among
        )
        assert test is not None
        found = {"test_mean": test.mean, "test_low": test.low, "test_high": test.high, "n": test.n}
        gain: Mapping[str, Any] = {}
        theirs = self.known.get(self.reference)
        if theirs is not None and theirs is not self.best:
            pairs_are_fresh = self.decided_afresh and decisive_seeds(self.best, theirs)[1] == 1
            gain = compare_two(self.best, theirs, 1 if pairs_are_fresh else self.among)
        return found | {
            "gain": gain.get("difference"),
            "gain_low": None if gain.get("low") is None else max(gain["low"], -1),
            "gain_high": None if gain.get("high") is None else min(gain["high"], 1),
        }

    def costs(self, against: str) -> dict[str, float]:
        """Mean training time of each scheme that may be the best, in units of another's."""
        theirs = self.known.get(against)
        found = {name: _cost(self.known[name], theirs) for name in self.names} if theirs else {}
        return {name: cost for name, cost in found.items() if cost is not None}


@lru_cache(maxsize=1)
def shortlists(groups: Groups, reference: str) -> list[Shortlist]:
    """One for each setting but the lr in which three schemes or more have a result. Made once and shared."""
    found = [_shortlist(setting, by_scheme, reference) for setting, by_scheme in choices(groups).items()]
    return [one for one in found if one is not None]


def _shortlist(setting: Setting, by_scheme: Mapping[str, Choice], reference: str) -> Shortlist | None:
    known = {scheme: choice for scheme, choice in by_scheme.items() if choice.accuracies}
    if len(known) < SCHEMES:
        return None
    best = max(known.values(), key=_mean)
    found = Shortlist(setting, known, reference, (), best, fresh=best.chosen and best.confirmed)
    compared = found.compared
    edges = [choice for choice in (best, known.get(reference)) if choice and choice.edge]
    if found.at_chance or edges or len(compared) < 2:
        return found
    names = may_be_best(compared)
    best = max((compared[name] for name in names), key=_mean)
    return replace(found, names=names, best=best)


def may_be_best(compared: Mapping[str, Choice]) -> list[str]:
    """The schemes that can be the best: the truly best one is among them with a probability of at least 95%.

    Of k schemes, one is left out where a paired one-sided t test at level 0.05 / (k - 1) shows it to be below another.
    The best one is left out only if one of its k - 1 tests errs, whatever the variances.

    Source: Gupta 1965, Technometrics 7; Hsu 1996, Multiple Comparisons, chapter 4 (comparisons with the best).
    """
    level = LEVEL / max(1, len(compared) - 1)
    below = set()
    for ours, theirs in combinations(compared.values(), 2):
        found = compare_two(ours, theirs)
        if found["p"] is not None and found["p"] / 2 < level:
            below.add(ours.scheme if found["difference"] < 0 else theirs.scheme)
    return [scheme for scheme in compared if scheme not in below]


def compare_two(ours: Choice, theirs: Choice, among: int = 1) -> dict[str, Any]:
    """`statistics.compare` of two schemes at their best lrs, on the seeds that decide.

    Args:
        among: so many schemes and lrs, one of which `ours` is, were chosen from with the same seeds.
    """
    seeds, tried = decisive_seeds(ours, theirs)
    a, b = ours.accuracies, theirs.accuracies
    both = [seed for seed in a if seed in b and seed in seeds]
    return compare([a[seed] for seed in both], [b[seed] for seed in both], 1.0, max(tried, among))


def recommendations(groups: Groups, reference: str) -> list[str]:
    """A few sentences for each setting but the lr; where there are many settings, one that names the schemes alone.

    They name the schemes that may be the best, and the numbers of the one with the highest mean validation accuracy.
    """
    found = shortlists(groups, reference)
    if len(choices(groups)) <= IN_FULL:
        return [_sentences(one) for one in found]
    if not found or len(found) > LISTED:
        return []
    parts = []
    for one in found:
        nothing = "nothing, as no run does better than chance" if one.at_chance else "undecided"
        parts.append(f"at {label(one.setting, '')}: {', '.join(one.names) or nothing}")
    of = " of the schemes that were run on fresh seeds" * any(one.fresh for one in found)
    return [f"May be the best{of}, with 95% confidence in each setting: {'; '.join(parts)}."]


def _sentences(found: Shortlist) -> str:
    best, known, compared = found.best, found.known, found.compared
    where = f" at {name}" if (name := label(found.setting, "")) else " here"
    if found.at_chance:
        return f"Nothing is recommended{where}: no run does better than chance."
    numbers = _numbers(found)
    if not found.names:
        reasons = "; ".join(f"{choice.scheme}: {choice.edge}" for choice in known.values() if choice.edge)
        return f"Undecided{where}: highest so far {numbers}; {reasons}."
    pool = found.pool
    undecided = [f"{scheme}: {choice.edge}" for scheme, choice in pool.items() if choice.edge]
    which = [" that were run on fresh seeds"] * found.fresh
    which += [" whose best lr lies inside those tried"] * bool(undecided)
    among = f"the {len(compared)} schemes{' and'.join(which)}"
    if len(found.names) == 1:
        words = [f"Recommended{where}: {numbers}. With 95% confidence it is the best of {among}."]
    else:
        lost = {name: compared[name].decisive.diverged for name in found.names}
        names = ", ".join(name + (f" ({lost[name]})" if lost[name] else "") for name in found.names)
        words = [
            f"Cannot be told apart{where}: {names} (with 95% confidence the best of {among} is among "
            f"them). Highest in validation accuracy: {numbers}{_cheapest(found)}."
        ]
    if not found.fresh and "95% interval" in numbers:
        every = f"{found.among} schemes and lrs" if found.among > len(known) else f"{len(known)} schemes"
        words.append(f"These intervals hold for all {every} at once, as the same seeds chose among them.")
    if left_out := [choice for choice in known.values() if choice.scheme not in pool]:
        behind = sorted({f"{100 * (_mean(best) - _mean(choice)):.2f}" for choice in left_out}, key=float)
        names = ", ".join(choice.scheme for choice in left_out)
        words.append(
            f"Not run on fresh seeds: {names} ({' to '.join(behind[:: max(1, len(behind) - 1)])} points below "
            f"{best.scheme} in validation accuracy on the seeds that chose)."
        )
    if undecided:
        words.append(f"Undecided: {'; '.join(undecided)}.")
    return " ".join(words)


def _numbers(found: Shortlist) -> str:
    """ "batch, 95.70% test accuracy (95% interval 95.31 to 96.02, 10 fresh seeds), +1.10 points (+0.80 to +1.40)
    against none, in 1.60 times its training time".
    """
    ours, theirs, n = found.best, found.known.get(found.reference), found.numbers()
    words = [f"{ours.scheme}, {100 * n['test_mean']:.2f}% test accuracy"]
    if n["test_low"] is not None:
        seeds = f"{n['n']} {'fresh ' * found.decided_afresh}seeds"
        words.append(f" (95% interval {100 * n['test_low']:.2f} to {100 * n['test_high']:.2f}, {seeds})")
    if ours.decisive.diverged:
        words.append(f", {ours.decisive.diverged} and count at chance")
    if theirs is not None and theirs is not ours:
        if n["gain"] is None:
            words.append(f", without a seed in common with {found.reference}")
        else:
            interval = "" if n["gain_low"] is None else f" ({100 * n['gain_low']:+.2f} to {100 * n['gain_high']:+.2f})"
            words.append(f", {100 * n['gain']:+.2f} points{interval} against {found.reference}")
        if cost := _cost(ours, theirs):
            words.append(f", in {cost:.2f} times its training time")
    return "".join(words)


def _cheapest(found: Shortlist) -> str:
    costs = {name: cost for name, cost in found.costs(found.best.scheme).items() if name != found.best.scheme}
    cheapest = min(costs, key=costs.__getitem__, default=None)
    if cheapest is None or costs[cheapest] > CHEAPER:
        return ""
    return f"; the cheapest is {cheapest}, in {costs[cheapest]:.2f} times the time of {found.best.scheme}"


def shortlist_table(groups: Groups, reference: str) -> Table:
    """The schemes that may be the best, a row per setting: the question that most studies are made for."""
    name, title = "shortlist", "Which schemes may be the best"
    columns = [
        *setting_columns(groups, "lr"),
        Column("may_be_best", "may be the best", numeric=False),
        Column("compared", "of"),
        Column("highest", "highest in validation", numeric=False),
        Column("lr", "its lr", number("{:g}")),
        Column("test_mean", "test accuracy %", percent),
        Column("test_low", "95% from", percent),
        Column("test_high", "to", percent),
        Column("seeds", "seeds", numeric=False),
        Column("gain", f"against {reference}, points", points),
        Column("gain_low", "95% from", points),
        Column("gain_high", "to", points),
        Column("times", f"training time, {reference} = 1", numeric=False),
    ]
    rows = []
    for one in shortlists(groups, reference):
        n = one.numbers()
        nothing = "no run does better than chance" if one.at_chance else "undecided: a best lr lies at the edge"
        rows.append(
            {"dataset": groups.constant.get("dataset")}
            | setting_start(groups, one.setting)
            | {"may_be_best": ", ".join(one.names) or nothing, "compared": len(one.compared)}
            | {"highest": one.best.scheme, "lr": one.best.lr}
            | {"seeds": f"{n.pop('n')}{' fresh' * one.decided_afresh}"}
            | n
            | {"times": ", ".join(f"{name} {cost:.2f}" for name, cost in one.costs(reference).items())}
        )
    if not rows:
        return Table(name, title, "", columns, [], "Three schemes with a result in one setting supply it.")
    caption = (
        "Each scheme at its own best lr. With 95% confidence, in each row by itself, the truly best of the schemes "
        "that are compared is among those named: left out are those that a paired one-sided t test shows to be below "
        "another, at 0.05/(k - 1) of k (Gupta 1965; Hsu 1996). After a round of fresh seeds the schemes that were in "
        "it are compared. Accuracy and gain are of the one with the highest validation accuracy over the seeds that "
        "chose; their intervals are Student's where the seeds are fresh, and hold for all schemes and lrs of a row at "
        f"once where the same seeds chose. Intervals cover {interval_covers(groups.members)}."
    )
    return Table(name, title, caption, columns, rows)


def _mean(choice: Choice) -> float:
    return choice.mean or 0.0


def _cost(ours: Choice, theirs: Choice) -> float | None:
    """Mean training seconds over those of another scheme."""
    means = []
    for choice in (ours, theirs):
        seconds = [value for value in choice.shown.numbers("seconds.training").values() if value > 0]
        means += [sum(seconds) / len(seconds)] if seconds else []
    return means[0] / means[1] if len(means) == 2 else None
