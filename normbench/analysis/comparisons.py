"""Schemes against a reference, paired by seed: everything but the scheme is the same, the first weights included."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from normbench.analysis.groups import Group, Groups, Setting
from normbench.analysis.reproduce import again
from normbench.analysis.statistics import MOST, Comparison, compare, holm, seeds_needed, verdict
from normbench.analysis.tables import (
    REMARKS,
    SCHEME,
    Column,
    Table,
    format_p,
    number,
    points,
    row_start,
    setting_columns,
)

LEVEL = 0.05
FIRST = 5  # pairs to start with where there is no spread yet to plan from
FRESH = 3  # fresh seeds from which on they replace those that chose an lr: the t interval of two is useless


@dataclass(frozen=True, eq=False)
class Pairing:
    """What is compared with what. A group without runs stands for one that is missing.

    Args:
        setting: what both share.
        seeds: only runs with these; None: all.
        chosen: these seeds have helped to choose an lr, so that only fresh ones will count once there are some.
        taken: seeds that would not be fresh.
    """

    setting: Setting
    group: Group
    reference: Group
    seeds: Collection[Any] | None = None
    chosen: bool = False
    taken: Collection[Any] = ()

    @property
    def scheme(self) -> str:
        return self.group.scheme

    @property
    def arms(self) -> tuple[Group, Group]:
        """The runs that take part: of the scheme, and of the reference."""
        if self.seeds is None:
            return self.group, self.reference
        return self.group.with_seeds(self.seeds), self.reference.with_seeds(self.seeds)


@dataclass(frozen=True, eq=False)
class Versus:
    """A comparison with what depends on the others of its table: adjusted p values and the verdict from them."""

    pairing: Pairing
    result: Comparison
    p: float | None = None
    p_equivalent: float | None = None
    verdict: str | None = None
    seeds_needed: int | None = None
    command: str = ""
    remarks: str = ""


def compare_all(pairings: Sequence[Pairing], margin: float) -> list[Versus]:
    """Compare test accuracies pair by pair, and adjust over all of them: one call is one table.

    Args:
        margin: of equivalence, as a fraction: 0.005 is half a point.
    """
    results = []
    for pairing in pairings:
        ours, theirs = (arm.numbers("test_accuracy") for arm in pairing.arms)
        seeds = [seed for seed in ours.index if seed in theirs.index]
        results.append(compare(ours.reindex(seeds).tolist(), theirs.reindex(seeds).tolist(), margin))
    adjusted, adjusted_equivalent = holm([r.p for r in results]), holm([r.p_equivalent for r in results])
    levels = (_level(adjusted), _level(adjusted_equivalent))
    found = []
    for pairing, result, p, p_eq in zip(pairings, results, adjusted, adjusted_equivalent, strict=True):
        word, needed, command = verdict(result.difference, p, p_eq, LEVEL), None, ""
        remarks = _remarks(pairing, result)
        if word == "inconclusive" and result.n == 1:
            command = _command(pairing, FIRST if pairing.chosen else FIRST - 1)
        elif word == "inconclusive" and result.sd and result.difference is not None:
            needed = seeds_needed(result.difference, result.sd, margin, *levels)
            if needed is None:
                remarks.append(f"too small a difference for seeds to settle: more than {MOST} needed at this spread")
            else:
                command = _command(pairing, max(needed, FRESH) if pairing.chosen else needed - result.n)
        found.append(Versus(pairing, result, p, p_eq, word, needed, command, "; ".join(remarks)))
    return found


def comparisons(groups: Groups, reference: str, margin: float) -> tuple[Table, list[Versus]]:
    """Each scheme against `reference` where everything else is the same, the lr too: the table, and what is in it."""
    pairings = [
        Pairing(setting, group, by_scheme.get(reference) or group.missing("the reference"))
        for setting, by_scheme in groups.settings.items()
        for group in by_scheme.values()
        if group.scheme != reference
    ]
    found = compare_all(pairings, margin)
    rows = [row_start(groups, v.pairing.scheme, v.pairing.setting) | row(v, reference, margin) for v in found]
    caption = (
        f"Each scheme against {reference}, all settings equal, the lr too: test accuracy of the scheme minus that of "
        f"{reference} for the same seed. {how_to_read(found, margin)}"
    )
    columns = [SCHEME, *setting_columns(groups), *COLUMNS]
    note = "" if rows else f"Not compared: all runs are of {reference}. Runs of another scheme would supply it."
    return Table("comparisons", f"Against {reference}, same lr", caption if rows else "", columns, rows, note), found


def row(versus: Versus, reference: str, margin: float) -> dict[str, Any]:
    """Accuracies, differences and the margin are fractions of 1; the p values without "holm" are not adjusted."""
    result, pairing = versus.result, versus.pairing
    arms = dict(zip(("scheme", "reference"), pairing.arms, strict=True))
    return {
        "reference": reference,
        "n": result.n,
        **{f"unpaired_{name}": len(arm.numbers("test_accuracy")) - result.n for name, arm in arms.items()},
        **{f"diverged_{name}": arm.count("diverged") for name, arm in arms.items()},
        **{name: getattr(result, name) for name in ("difference", "low", "high", "sd", "correlation", "p")},
        "p_holm": versus.p,
        "margin": margin,
        "p_equivalent": result.p_equivalent,
        "p_equivalent_holm": versus.p_equivalent,
        **{name: getattr(versus, name) for name in ("verdict", "seeds_needed", "command", "remarks")},
    }


COLUMNS = (
    Column("difference", "difference, points", points),
    Column("low", "95% from", points),
    Column("high", "to", points),
    Column("n", "pairs"),
    Column("p_holm", "p (t, Holm)", format_p),
    Column("p_equivalent_holm", "p (equivalence, Holm)", format_p),
    Column("correlation", "correlation by seed", number("{:.2f}")),
    Column("verdict", "verdict", numeric=False),
    Column("seeds_needed", "seeds for 80% power"),
    REMARKS,
    Column("command", "to settle it", str, numeric=False),
)


def how_to_read(found: Sequence[Versus], margin: float) -> str:
    pairs = sum(v.result.n for v in found)
    tests = sum(v.result.p is not None for v in found)
    return (
        f"From {pairs} pairs of runs; a run that diverged or is missing takes its pair out, which is counted here. "
        "Intervals are 95% Student t for the mean difference, one by one: new seeds on this test set, not new images. "
        f"p values are adjusted over the {tests} comparisons of this table that can be tested (Holm). better, worse: "
        "paired t test, p < 0.05. equivalent: less than "
        f"{100 * margin:g} points apart (TOST, p < 0.05), which goes first, as such a difference does not matter. "
        "inconclusive: neither; the seeds are what would give a verdict with 80% power at the difference and spread "
        "seen so far. A correlation above 0 says that pairing by seed helps."
    )


def _level(adjusted: Iterable[float | None]) -> float:
    """What the next comparison to pass has to undercut: where Holm's procedure has stopped."""
    return LEVEL / max(1, sum(p is not None and p >= LEVEL for p in adjusted))


def _remarks(pairing: Pairing, result: Comparison) -> list[str]:
    """What became of the runs that are in no pair, and what a reader could take wrongly."""
    words = []
    ours, theirs = pairing.arms
    for arm in (ours, theirs):
        parts = [f"{n} {s}" for s in ("diverged", "failed", "running", "interrupted") if (n := arm.count(s))]
        parts += [f"{arm.at_chance} at chance"] if arm.at_chance else []
        words += [f"{arm.scheme}: {', '.join(parts)} of {len(arm.members)}"] if parts else []
        words += dict.fromkeys(f"{arm.scheme} unsupported: {run.reason}" for run in arm.having("unsupported"))
        words += [] if arm.members else [f"no run of {arm.scheme} here"]
    for arm, other in ((ours, theirs), (theirs, ours)):
        name = arm.scheme
        if result.n and arm.count("diverged") and not other.count("diverged"):
            words.append(f"the pairs left flatter {name}: {name} diverged for other seeds and {other.scheme} did not")
        if other.members and (alone := sorted(arm.seeds() - other.seeds())):
            words.append(f"seed {', '.join(map(str, alone))} of {name} has no partner")
    if result.n > 1 and result.sd == 0:
        same = "the same accuracy" if abs(result.difference or 0.0) < 1e-12 else "the same difference"
        words.append(f"{same} in all {result.n} pairs: without a spread there is no interval and no test")
    return words


def _command(pairing: Pairing, missing: int) -> str:
    """Completes pairs of which a half is missing or failed, then takes seeds that neither arm has seen."""
    groups = [group for group in (pairing.group, pairing.reference) if group.members]
    known = set(pairing.taken).union(*(group.seeds() for group in groups))
    halves = set[Any]()
    if not pairing.chosen:
        lost = set[Any]().union(*(group.seeds("diverged", "unsupported") for group in groups))
        halves = set[Any]().union(*(arm.seeds() for arm in pairing.arms)) - lost
        halves -= set.intersection(*(group.seeds("complete") for group in groups))
    asked = [*sorted(halves), *islice(count(max(known) + 1), missing)][:missing]
    return again([group.members[0] for group in groups], seed=asked)
