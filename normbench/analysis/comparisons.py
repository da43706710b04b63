"""Schemes against a reference, paired by seed: everything but the scheme is the same, the first weights included.

A comparison is a dictionary, one row of a table: what is compared (`setting`, `scheme`, and the groups of runs `ours`
and `theirs`), the numbers of `statistics.compare`, adjusted p values, the verdict from them, and what would settle it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from normbench.analysis.groups import OVER, Group, Groups, Setting, without
from normbench.analysis.notes import interval_covers
from normbench.analysis.reproduce import again
from normbench.analysis.statistics import LEVEL, MOST, compare, holm, seeds_needed, verdict, welch
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

FIRST = 5  # pairs to start with where there is no spread yet to plan from
FRESH = 3  # fresh seeds from which on they replace those that chose an lr: the t interval of two is useless
Comparison = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Pair:
    """What is compared with what. A group without runs stands for one that is missing.

    Args:
        setting: what both share.
        fresh: these runs alone did not choose the lr.
        tried: among how many lrs these seeds have chosen, so that only fresh ones will count once there are some; 1:
            they have chosen none.
        choices: a `best_lr.Choice` for each, where each has its own lr.
    """

    setting: Setting
    ours: Group
    theirs: Group
    fresh: bool = False
    tried: int = 1
    choices: Sequence[Any] = ()

    @property
    def edges(self) -> list[Any]:
        """The choices whose lr lies at the edge of those tried, so that nothing is decided."""
        return [choice for choice in self.choices if choice.edge]


def compare_all(pairs: Sequence[Pair], margin: float) -> list[Comparison]:
    """Test accuracies compared seed by seed, a row for each pair; p values adjusted over all: one call is one table.

    Accuracies, differences and the margin are fractions of 1; p values without "holm" are not adjusted for the number
    of comparisons.

    Args:
        margin: of equivalence: 0.005 is half a point.
    """
    found = [_compared(pair, margin) for pair in pairs]
    levels = []
    for name in ("p", "p_equivalent"):
        adjusted = holm([row[name] for row in found])
        for row, p in zip(found, adjusted, strict=True):
            row[f"{name}_holm"] = p
        # What the next comparison to pass has to undercut: where Holm's procedure has stopped.
        levels.append(LEVEL / max(1, sum(p is not None and p >= LEVEL for p in adjusted)))
    return [row | _settled(row, margin, levels) for row in found]


def comparisons(groups: Groups, reference: str, margin: float) -> Table:
    """Each scheme against `reference` where everything else is the same, the lr too."""
    pairs = [
        Pair(setting, group, by_scheme.get(reference) or group.missing("the reference"))
        for setting, by_scheme in groups.settings.items()
        for group in by_scheme.values()
        if group.scheme != reference
    ]
    found = compare_all(pairs, margin)
    rows = [row_start(groups, c["scheme"], c["setting"]) | numbers(c, reference) for c in found]
    caption = (
        f"Each scheme against {reference}, all settings equal, the lr too: test accuracy of the scheme minus that of "
        f"{reference} for the same seed. {how_to_read(found, margin)}"
    )
    columns = [SCHEME, *setting_columns(groups), *COLUMNS]
    note = "" if rows else f"Not compared: all runs are of {reference}. Runs of another scheme would supply it."
    return Table("comparisons", f"Against {reference}, same lr", caption if rows else "", columns, rows, note)


def numbers(comparison: Comparison, reference: str) -> dict[str, Any]:
    """What a table has of a comparison, besides what is compared."""
    return {"reference": reference} | {key: value for key, value in comparison.items() if key not in COMPARED}


COMPARED = ("setting", "scheme", "ours", "theirs", "pair")
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


def how_to_read(found: Sequence[Comparison], margin: float) -> str:
    runs = [run for comparison in found for side in ("ours", "theirs") for run in comparison[side].members]
    return (
        f"From {sum(c['n'] for c in found)} pairs of runs; a run that diverged counts at chance (1 / classes), one "
        "that is missing takes its pair out. "
        f"Intervals are 95% Student t for the mean difference, one by one: {interval_covers(runs)}. "
        f"p values are adjusted over the {sum(c['p'] is not None for c in found)} comparisons of this table that can "
        "be tested (Holm). better, worse: paired t test, p < 0.05. equivalent: less than "
        f"{100 * margin:g} points apart (TOST, p < 0.05), which goes first, as such a difference does not matter. "
        "undecided: a best lr lies at the edge of those tried. inconclusive: none of these; the seeds are what would "
        "give a verdict with 80% power at the difference and spread seen so far. A correlation above 0 says that "
        "pairing by seed helps."
    )


def _compared(pair: Pair, margin: float) -> Comparison:
    """A row without what depends on the others."""
    arms = {"scheme": pair.ours, "reference": pair.theirs}
    ours, theirs = (arm.accuracies() for arm in arms.values())
    both = [seed for seed in ours if seed in theirs]
    found = compare([ours[seed] for seed in both], [theirs[seed] for seed in both], margin, pair.tried)
    if found["low"] is not None:  # no difference of accuracies is larger than 1
        found |= {"low": max(found["low"], -1.0), "high": min(found["high"], 1.0)}
    unpaired = {"unpaired_scheme": len(ours) - len(both), "unpaired_reference": len(theirs) - len(both)}
    diverged = {f"diverged_{name}": arm.count("diverged") for name, arm in arms.items()}
    what = {"setting": pair.setting, "scheme": pair.ours.scheme, "ours": pair.ours, "theirs": pair.theirs, "pair": pair}
    more = {"tried": pair.tried, "margin": margin, "remarks": _remarks(pair, found)}
    return what | found | unpaired | diverged | more


def _settled(row: Comparison, margin: float, levels: Sequence[float]) -> dict[str, Any]:
    """The verdict, and where there is none how many seeds would give one: a command, or a remark that none would."""
    pair, remarks = row["pair"], row["remarks"]
    word, needed, command = verdict(row["difference"], row["p_holm"], row["p_equivalent_holm"], LEVEL), None, ""
    if pair.edges and word is not None:
        word, command = "undecided", " && ".join(choice.further for choice in pair.edges)
        remarks = [*(f"{choice.scheme}: {choice.edge}" for choice in pair.edges), *remarks]
    elif word == "inconclusive" and row["n"] == 1:
        command = _command(pair, FIRST if pair.tried > 1 else FIRST - 1)
    elif word == "inconclusive" and row["sd"]:
        needed = seeds_needed(row["difference"], row["sd"], margin, *levels)
        if needed is None:
            remarks.append(f"too small a difference for seeds to settle: more than {MOST} needed at this spread")
        else:
            command = _command(pair, max(needed, FRESH) if pair.tried > 1 else needed - row["n"])
    return {"verdict": word, "seeds_needed": needed, "command": command, "remarks": "; ".join(remarks)}


def _remarks(pair: Pair, found: dict[str, Any]) -> list[str]:
    """What became of the runs that are in no pair, and what a reader could take wrongly."""
    words = []
    for arm in (pair.ours, pair.theirs):
        parts = [f"{n} {s}" for s in ("diverged", "failed", "running", "interrupted") if (n := arm.count(s))]
        parts += [f"{arm.at_chance} at chance"] if arm.at_chance else []
        words += [f"{arm.scheme}: {', '.join(parts)} of {len(arm.members)}"] if parts else []
        words += dict.fromkeys(f"{arm.scheme} unsupported: {run.reason}" for run in arm.having("unsupported"))
        words += [] if arm.members else [f"no run of {arm.scheme} here"]
    for arm, other in ((pair.ours, pair.theirs), (pair.theirs, pair.ours)):
        if other.members and (alone := sorted(arm.seeds() - other.seeds())):
            words.append(f"seed {', '.join(map(str, alone))} of {arm.scheme} has no partner")
    if found["n"] > 1 and found["sd"] == 0:
        same = "the same accuracy" if abs(found["difference"]) < 1e-12 else "the same difference"
        words.append(f"{same} in all {found['n']} pairs: without a spread there is no interval and no test")
    return words


def _command(pair: Pair, missing: int) -> str:
    """Completes pairs of which a half is missing or failed, then takes seeds that neither arm has seen."""
    arms = [arm for arm in (pair.ours, pair.theirs) if arm.members]
    known = set[Any]().union(*(arm.seeds() for arm in arms), *(choice.seeds for choice in pair.choices))
    halves = set[Any]()
    if pair.tried == 1:
        lost = set[Any]().union(*(arm.seeds("unsupported") for arm in arms))
        halves = set[Any]().union(*(arm.seeds() for arm in arms)) - lost
        halves -= set.intersection(*(arm.seeds(*OVER) for arm in arms))
    asked = [*sorted(halves), *islice(count(max(known) + 1), missing)][:missing]
    return again([arm.members[0] for arm in arms], seed=asked)


def changes(groups: Groups, before: str, after: str) -> list[Comparison]:
    """What differs between two studies that were read as one (`load_together`): a row for each scheme and setting.

    Test accuracies of `after` minus those of `before`, as fractions of 1: by seed where the two share two seeds or all
    that one of them has (`paired`; other seeds are left out), otherwise by Welch's test, which has no pairs; p values
    adjusted over all rows. A run that diverged counts at chance. `difference` is None where one of the two has no
    result; `only` names the study that alone has any run.
    """
    cells: dict[tuple[str, Setting], dict[str, Group]] = {}
    for setting, by_scheme in groups.settings.items():
        for scheme, group in by_scheme.items():
            cells.setdefault((scheme, without(setting, "study")), {})[dict(setting)["study"]] = group
    rows = []
    for (scheme, setting), arms in cells.items():
        first, second = (arms[study].accuracies() if study in arms else {} for study in (before, after))
        shared = [seed for seed in first if seed in second]
        paired = len(shared) >= min(2, len(first), len(second)) > 0
        a, b = ([of[seed] for seed in (shared if paired else of)] for of in (first, second))
        row: Comparison = {"scheme": scheme, "setting": setting, "only": "" if len(arms) > 1 else next(iter(arms))}
        row |= {"before": a, "after": b, "paired": paired} | dict.fromkeys(("difference", "low", "high", "p"))
        if a and b:
            row |= compare(b, a, margin=1.0) if paired else welch(b, a)
        rows.append(row)
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows
