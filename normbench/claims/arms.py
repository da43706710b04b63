"""The two sides of a check: which runs they are, and the number that each seed has on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from normbench.analysis.best_lr import choose
from normbench.analysis.groups import Group, Groups, show
from normbench.analysis.selection import has
from normbench.claims.claim import Check
from normbench.claims.grammar import Filter, kind, said
from normbench.claims.metrics import NEITHER, Number, apart, number

FEWEST = 3  # to correlate


class NoAnswer(ValueError):
    """A check can't be made with these runs. The message says why."""


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
    metric, correlated = check.metric, kind(check.metric) == "correlate"
    parts: Sequence[Any] = metric["correlate"] if correlated else [metric]  # type: ignore[index]
    over = {str(metric.get("over") or "norm")} if correlated and isinstance(metric, Mapping) else set(check.mean_over)
    chosen_groups = chosen(groups, only, over)
    notes: Counter[str] = Counter()
    found: dict[Any, Number] = {}
    for seed in dict.fromkeys(run.seed for group in chosen_groups for run in group.members):
        members = [next((e for e in group.members if e.seed == seed), None) for group in chosen_groups]
        values = [[number(part, e) if e else Number(None, "missing") for e in members] for part in parts]
        notes.update(note for of_run in zip(*values, strict=True) for note in {v.note for v in of_run} if note)
        found[seed] = _correlation(*values) if correlated else _mean(values[0])
    words = [f"{n} of {len(found) * len(chosen_groups)} {note}" for note, n in notes.items()]
    if "lr" in groups.varying and not {"lr"} & {*only, *over}:
        best = [f"{group.scheme} " * correlated + show(group.members[0].values.get("lr")) for group in chosen_groups]
        words.append("lr " + ", ".join(dict.fromkeys(best)))
    return found, [f"{said(only)}: {', '.join(words)}"] if words else []


def chosen(groups: Groups, only: Filter, over: Collection[str] = ()) -> list[Group]:
    """The groups that a filter leaves: one, or one for each value of the options `over`.

    Where the filter leaves several lrs, each has that with the highest validation accuracy; lrs that diverge are last.

    Args:
        over: "norm" stands for the schemes, with their options.

    Raises: NoAnswer: none, or several that differ in another option.
    """
    chosen_groups: dict[tuple[Any, ...], dict[float, Group]] = defaultdict(dict)
    best = not {"lr"} & {*only, *over}
    for setting, by_scheme in groups.settings.items():
        for scheme, group in by_scheme.items():
            settings = group.members[0].values
            if has(settings, only):
                rest = [item for item in setting if not (best and item[0] == "lr")]
                chosen_groups[scheme, *rest][float(settings.get("lr") or 0.0)] = group
    if not chosen_groups:
        raise NoAnswer(f"no run has {said(only)}")
    firsts = [next(iter(by_lr.values())).members[0].values for by_lr in chosen_groups.values()]
    inside = [key for key in firsts[0] if key.startswith("norm.") and key.count(".") == 1]
    for key in ("norm", *inside, *groups.varying):
        values = dict.fromkeys(show(first.get(key)) for first in firsts)
        wanted = key in over or (best and key == "lr") or ("norm" in over and key.partition(".")[0] == "norm")
        if len(values) > 1 and not wanted:
            raise NoAnswer(f"{said(only)} leaves {key} open: {', '.join(values)}. Name one, or average (mean_over)")
    return [choose(key[1:], key[0], by_lr).shown for key, by_lr in chosen_groups.items()]


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
    pairs = [(x.value, y.value) for x, y in zip(a, b, strict=True) if x.value is not None and y.value is not None]
    if len(pairs) < FEWEST:
        return Number(None, f"only {len(pairs)} to correlate")
    columns = np.asarray(pairs, dtype=float).T
    ranks = [[((v < x).sum() + (v <= x).sum() + 1) / 2 for x in v] for v in columns]
    if any(np.ptp(each) == 0 for each in ranks):
        return Number(None, "no spread to correlate")
    return Number(float(np.corrcoef(ranks)[0, 1]))
