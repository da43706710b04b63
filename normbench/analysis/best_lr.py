"""Each scheme at its own best learning rate, against a reference at its own; the smallest batch size that works."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normbench.analysis.comparisons import COLUMNS, FRESH, Pairing, Versus, compare_all, how_to_read, row
from normbench.analysis.groups import Group, Groups, Setting, without
from normbench.analysis.statistics import Comparison, estimate
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, number, percent, row_start, setting_columns

OVER = ("complete", "diverged")
USABLE = ("usable", "unusable", "inconclusive")
MISSING = "Every scheme was run at one lr only. Runs at several, such as lr=0.01,0.1,1 after run -m, would supply it."


@dataclass(frozen=True, eq=False)
class Choice:
    """The lr of one scheme in one setting.

    Args:
        setting: all but the lr.
        groups: by lr, ascending.
        grid: the lrs at which a run is over, with a result or diverged.
        means: validation accuracy at each lr of the grid; None where a run diverged.
        lr: the best; None where no run is over.
        on: seeds that were run at two lrs or more, which decide.
        fresh: seeds that `lr` alone has, with which it was not chosen; all of them where there was no choice.
    """

    setting: Setting
    scheme: str
    groups: dict[float, Group]
    grid: tuple[float, ...]
    means: dict[float, float | None]
    lr: float | None
    on: frozenset[Any]
    fresh: frozenset[Any]

    @property
    def chosen(self) -> bool:
        """Whether there was a choice."""
        return len(self.grid) > 1

    @property
    def shown(self) -> Group:
        """The group at the best lr; without one the first, so that a table says what became of its runs."""
        return next(iter(self.groups.values())) if self.lr is None else self.groups[self.lr]

    @property
    def seeds(self) -> frozenset[Any]:
        return frozenset[Any]().union(*(group.seeds() for group in self.groups.values()))

    @property
    def spent(self) -> frozenset[Any]:
        """Seeds that had a part in the choice."""
        return self.seeds - self.fresh if self.chosen else frozenset()


Choices = Mapping[Setting, Mapping[str, Choice]]  # by setting without the lr, then by scheme


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
        group = groups[lr].with_seeds(deciding)
        values, diverged = group.numbers("validation_accuracy").tolist(), group.count("diverged")
        mean = sum(values) / len(values) if values else None
        means[lr] = None if diverged else mean
        ranks[lr] = (diverged / len(deciding), -(mean or 0.0))
    best = min(ranks, key=ranks.__getitem__, default=None)
    fresh = frozenset[Any]()
    if best is not None and len(over) == 1:
        fresh = on
    elif best is not None and over[best] & on:  # without any of them, its other seeds have had to decide
        fresh = frozenset(over[best] - on)
    return Choice(setting, scheme, groups, tuple(over), means, best, on, fresh)


def pair(ours: Choice, theirs: Choice | None) -> Pairing:
    """Both at their own best lr; on fresh seeds alone where there are three or more pairs of such."""
    if theirs is None:
        return Pairing(ours.setting, ours.shown, ours.shown.missing("the reference"))
    both = Pairing(ours.setting, ours.shown, theirs.shown)
    if not (ours.chosen or theirs.chosen):
        return both
    spent = ours.spent | theirs.spent
    fresh = (ours.fresh | theirs.fresh) - spent
    chosen = len(ours.fresh & theirs.fresh - spent) < FRESH
    return replace(both, seeds=None if chosen else fresh, chosen=chosen, taken=ours.seeds | theirs.seeds)


def compare_at_best_lr(groups: Groups, reference: str, margin: float) -> list[Versus]:
    """Each scheme against the reference, each at its own best lr."""
    found = choices(groups).values()
    pairs = [(choice, by_scheme.get(reference)) for by_scheme in found for choice in by_scheme.values()]
    return compare_all([pair(ours, theirs) for ours, theirs in pairs if ours.scheme != reference], margin)


def several(chosen: Choices) -> bool:
    """Whether any scheme was run at more than one lr in any setting."""
    return any(len(choice.groups) > 1 for by_scheme in chosen.values() for choice in by_scheme.values())


def best_lr_table(groups: Groups, found: Sequence[Versus], reference: str, margin: float) -> Table:
    """Test accuracy of each scheme at its own best lr, beside its comparison from `compare_at_best_lr`."""
    name, title = "own_lr", f"Against {reference}, each at its own best lr"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr"),
        Column("lr", "best lr", number("{:g}")),
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
    versus = {(v.pairing.setting, v.pairing.scheme): v for v in found}
    rows = []
    for setting, by_scheme in chosen.items():
        theirs = by_scheme.get(reference)
        for scheme, choice in by_scheme.items():
            fresh = choice.fresh if choice.chosen and len(choice.fresh) >= FRESH else None
            alone = Versus(Pairing(setting, choice.shown, choice.shown.missing(""), fresh), Comparison(0))
            v = versus.get((setting, scheme), alone)
            compared = row(v, reference, margin)
            if scheme == reference:
                compared |= dict.fromkeys(("n", "unpaired_scheme", "unpaired_reference", "diverged_reference"))
            test = estimate(v.pairing.arms[0].numbers("test_accuracy").tolist())
            rows.append(
                row_start(groups, scheme, setting)
                | {"lr": choice.lr, "reference_lr": theirs.lr if theirs else None}
                | {"validation_mean": choice.means.get(choice.lr) if choice.lr is not None else None}
                | {"seeds": _seeds(choice, v.pairing.seeds), "test_n": test.n if test else 0}
                | {f"test_{key}": getattr(test, key, None) for key in ("mean", "low", "high", "median", "iqm")}
                | compared
            )
    caption = (
        "Each scheme at the lr with its highest mean validation accuracy (an lr at which a run diverged comes behind "
        "all others), and its test accuracy there. The same seeds choose and are compared, which flatters a little, "
        "unless three or more fresh seeds were run at the best lr alone: these then give the result by themselves. "
        f"Differences: minus {reference} at the best lr of its own. {how_to_read(found, margin)}"
    )
    return Table(name, title, caption, columns, rows)


def _seeds(choice: Choice, used: Collection[Any] | None) -> str:
    if not choice.chosen:
        return "one lr: nothing chosen" if choice.grid else "none"
    if used is None:
        return "the same seeds chose the lr"
    seeds = sorted(used)
    unbroken = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return "fresh: " + (f"{seeds[0]}..{seeds[-1]}" if unbroken else ", ".join(map(str, seeds)))


def usable(versus: Versus, margin: float) -> str:
    """usable: the interval of the difference lies above -margin; unusable: below; inconclusive: -margin is inside.

    A scheme that is unsupported, or diverged in every run, is unusable where the reference has a result.
    """
    low, high, pairing = versus.result.low, versus.result.high, versus.pairing
    if low is not None and low > -margin:
        return "usable"
    if high is not None and high < -margin:
        return "unusable"
    fails = pairing.group.count("unsupported", "diverged") == len(pairing.group.members)
    return "unusable" if fails and pairing.reference.count("complete") else "inconclusive"


def smallest_batch_table(groups: Groups, found: Sequence[Versus], reference: str, margin: float) -> Table:
    """From the comparisons of `compare_at_best_lr`, so that fewer updates at large batches count against nobody."""
    name, title = "smallest_batch", "Smallest usable batch size"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr", "batch_size"),
        Column("smallest_usable", "smallest usable", number("{:g}")),
        *(Column(word, word, numeric=False) for word in USABLE),
        REMARKS,
    ]
    if "batch_size" not in groups.varying:
        note = "All runs have the same batch size. Runs at several, such as batch_size=2,8,32 after run -m, supply it."
        return Table(name, title, "", columns, [], note)
    by_size: dict[tuple[Setting, str], dict[int, str]] = defaultdict(dict)
    for v in found:
        key = without(v.pairing.setting, "batch_size"), v.pairing.scheme
        by_size[key][dict(v.pairing.setting)["batch_size"]] = usable(v, margin)
    rows = [
        {k: v for k, v in row_start(groups, scheme, setting).items() if k != "batch_size"} | _sizes_row(sizes)
        for (setting, scheme), sizes in by_size.items()
    ]
    caption = (
        f"From {sum(v.result.n for v in found)} pairs of runs, each scheme and {reference} at its own best lr for that "
        f"batch size. Usable: the 95% interval of the paired difference in test accuracy lies above -{100 * margin:g} "
        "points; unusable: below it, or the scheme cannot be trained there; otherwise inconclusive: more seeds would "
        "tell. Smallest usable: the smallest above all that are unusable. New seeds on this test set, not new images."
    )
    note = "" if rows else f"All runs are of {reference}. Runs of another scheme would supply it."
    return Table(name, title, caption if rows else "", columns, rows, note)


def _sizes_row(sizes: dict[int, str]) -> dict[str, Any]:
    by_word = {word: sorted(s for s in sizes if sizes[s] == word) for word in USABLE}
    largest_unusable = max(by_word["unusable"], default=None)
    smallest = min((s for s in by_word["usable"] if s > (largest_unusable or 0)), default=None)
    remarks = []
    if smallest is not None and smallest == min(sizes):
        remarks.append("the smallest tried: it may be usable below")
    if smallest is None:
        remarks.append("not shown usable at any size" + (" above" if by_word["usable"] else ""))
    if smallest is not None and any((largest_unusable or 0) < s < smallest for s in by_word["inconclusive"]):
        remarks.append("smaller sizes are inconclusive")
    words: dict[str, Any] = {word: ", ".join(map(str, found)) for word, found in by_word.items()}
    return {"smallest_usable": smallest, "largest_unusable": largest_unusable} | words | {"remarks": "; ".join(remarks)}
