"""The statistics of a study: an answer in words, and the tables behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from normbench.analysis.batch_sizes import smallest_batch_table
from normbench.analysis.best_lr import Choice, best_lr_table, choices, compare_at_best_lr, lr_table, pair, several
from normbench.analysis.comparisons import LEVEL, compare_all, comparisons
from normbench.analysis.groups import Groups, Setting, label
from normbench.analysis.inference_statistics import inference_table
from normbench.analysis.leaderboard import leaderboard, leaderboard_table
from normbench.analysis.notes import SYNTHETIC
from normbench.analysis.statistics import estimate_accuracy
from normbench.analysis.tables import Table, format_p, records
from normbench.analysis.targets import time_table
from normbench.analysis.weight_perturbation import perturbation_table

NAMED = 3  # comparisons that a sentence names
SETTINGS, SCHEMES = 3, 3  # at most so many sentences; from so many schemes on there is something to recommend


@dataclass(frozen=True)
class Options:
    """What a reader may choose.

    Args:
        reference: the scheme that others are compared with; None: `none`, or the first where the study has no `none`.
        margin: differences below it do not matter, in points of accuracy (0.5 = 0.005).
        targets: validation accuracies to time, from 0 to 1.
    """

    reference: str | None = None
    margin: float = 0.5
    targets: tuple[float, ...] = (0.95, 0.98)


def tables(groups: Groups, options: Options | None = None) -> list[Table]:
    """Every table, in the page's order; one without data says in its note what would supply them.

    Raises:
        ValueError: an option that fits no study, or a reference that this one does not have.
    """
    options = options or Options()
    reference, margin = check(groups, options)
    best = compare_at_best_lr(groups, reference, margin)
    found = [
        leaderboard_table(leaderboard(groups)),
        comparisons(groups, reference, margin)[0],
        best_lr_table(groups, best, reference, margin),
        lr_table(groups),
        smallest_batch_table(groups, best, reference, margin),
        time_table(groups, options.targets),
        inference_table(groups),
    ]
    found += [table] if (table := perturbation_table(groups)) is not None else []
    return [replace(t, caption=f"{SYNTHETIC} {t.caption}") if groups.synthetic and t.rows else t for t in found]


def answer(groups: Groups, options: Options | None = None) -> list[str]:
    """Which normalization here, in a sentence or two: from the comparisons at each scheme's own best lr."""
    options = options or Options()
    reference, margin = check(groups, options)
    found = compare_at_best_lr(groups, reference, margin)
    how = ", each at its own best lr" if several(choices(groups)) else ""
    by_verdict = {word: records(found[found["verdict"] == word]) for word in found["verdict"].dropna().unique()}
    unsure = by_verdict.get("inconclusive", [])
    if not len(found):
        words = [f"Nothing to compare: all runs are of {reference}."]
    elif better := sorted(by_verdict.get("better", []), key=_difference, reverse=True):
        words = [f"Better than {reference}{how}: {_format_list([_format_measured(c) for c in better])}."]
    else:
        words = [f"No scheme is shown to be better than {reference}{how}."]
        if unsure:
            words[0] += f" Closest: {_format_measured(max(unsure, key=_difference))}: inconclusive."
    rest = {
        "worse": by_verdict.get("worse", []),
        f"equivalent within {options.margin:g} points": by_verdict.get("equivalent", []),
        "inconclusive": unsure,
        "undecided, as a best lr lies at the edge of those tried": by_verdict.get("undecided", []),
        "without a pair of results": records(found[found["verdict"].isna()]),
    }
    counted = [
        f"{len(some)} {word} ({_format_list([_format_name(c) for c in some])})" for word, some in rest.items() if some
    ]
    if counted:
        words.append(f"Of {len(found)} comparison{'s' * (len(found) > 1)}: {'; '.join(counted)}.")
    words = [*recommendations(groups, reference, margin), *words]
    return [SYNTHETIC, *words] if groups.synthetic else words


def check(groups: Groups, options: Options) -> tuple[str, float]:
    """The scheme to compare with, and the margin as a fraction. Raises ValueError."""
    if not 0 < options.margin < 100:
        raise ValueError(f"the margin is in points of accuracy, above 0: got {options.margin:g}. The usual is 0.5.")
    if not options.targets or not all(0 < target < 1 for target in options.targets):
        got = ", ".join(f"{target:g}" for target in options.targets) or "none"
        raise ValueError(f"targets are accuracies between 0 and 1: got {got}. 95% is 0.95.")
    if options.reference is None:
        return ("none" if "none" in groups.schemes else groups.schemes[0]), options.margin / 100
    if options.reference not in groups.schemes:
        raise ValueError(
            f"the reference is one of the study's schemes: got {options.reference!r}. "
            f"Take one of: {', '.join(groups.schemes)}."
        )
    return options.reference, options.margin / 100


def _difference(comparison: Mapping[str, Any]) -> float:
    return float(comparison["difference"])


def _format_name(comparison: Mapping[str, Any]) -> str:
    """Such as "selu at batch size 4, 2 of 5 diverged"; of what is undecided, the lr to add."""
    setting, ours, pair = label(comparison["setting"], ""), comparison["ours"], comparison["pair"]
    statuses = set(ours.runs["status"]) - {"complete", "diverged"}
    others = [f"{arm.scheme}: {arm.diverged}" for arm in (comparison["theirs"],) if arm.diverged]
    why = [ours.diverged, *others, *(statuses if len(ours.having(*statuses)) == len(ours.members) else ())]
    why += [f"add lr={choice.beyond:g} for {choice.scheme}" for choice in pair.edges]
    return ", ".join(filter(None, [comparison["scheme"] + (f" at {setting}" if setting else ""), *why]))


def _format_measured(comparison: Mapping[str, Any]) -> str:
    difference, low, high, n = (comparison[key] for key in ("difference", "low", "high", "n"))
    words = f"{_format_name(comparison)}, {100 * difference:+.2f} points"
    if low is None:
        return f"{words} ({n} {'pair' if n == 1 else 'pairs'}: no interval)"
    p = format_p(comparison["p_holm"], "= ")
    return f"{words} (95% interval {100 * low:+.2f} to {100 * high:+.2f}, {n} pairs, p {p} after Holm)"


def _format_list(words: Sequence[str]) -> str:
    more = len(words) - NAMED
    return "; ".join(words[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def recommendations(groups: Groups, reference: str, margin: float) -> list[str]:
    """A sentence for each setting but the lr, where there are few of them and enough schemes; each at its own best lr.

    The scheme is the one of the highest mean validation accuracy, so that its test accuracy was not what chose it.
    "Not significantly different" from it is by the paired t test over the seeds at 5% after Holm; pairs are those of
    the table of best lrs, fresh seeds included. Nothing is recommended where no run does better than chance, or where
    the best lr of that scheme, or of the reference, lies at the edge of those tried.

    Args:
        margin: of equivalence, as a fraction.
    """
    chosen = choices(groups)
    if not 1 <= len(chosen) <= SETTINGS:
        return []
    found = [_recommend(setting, by_scheme, reference, margin) for setting, by_scheme in chosen.items()]
    return [sentence for sentence in found if sentence]


def _recommend(setting: Setting, by_scheme: Mapping[str, Choice], reference: str, margin: float) -> str:
    with_result = {scheme: choice for scheme, choice in by_scheme.items() if len(choice.shown.accuracies())}
    if len(with_result) < SCHEMES:
        return ""
    where = f" at {name}" if (name := label(setting, "")) else " here"
    if all(choice.shown.at_chance == choice.shown.count("complete") for choice in with_result.values()):
        return f"Nothing is recommended{where}: no run does better than chance."
    best = max(with_result, key=lambda scheme: with_result[scheme].mean or 0.0)
    ours, others = with_result[best], [choice for scheme, choice in with_result.items() if scheme != best]
    test = estimate_accuracy(ours.shown.accuracies())
    assert test is not None
    edges = [c for c in (ours, with_result.get(reference)) if c and c.edge]
    start = f"Undecided{where}: highest so far" if edges else f"Recommended{where}:"
    words = [f"{start} {best}, {100 * test.mean:.2f}% test accuracy"]
    if test.low is not None and test.high is not None:
        words.append(f" (95% interval {100 * test.low:.2f} to {100 * test.high:.2f}, {test.n} seeds)")
    words.append(f", {ours.shown.diverged} and count at chance" if ours.shown.diverged else "")
    if best != reference and reference in with_result:
        [gain] = records(compare_all([pair(ours, with_result[reference])], margin))
        words.append(f", {_gain(gain)} {reference}")
        if cost := _cost(ours, with_result[reference]):
            words.append(f", in {cost:.2f} times its training time")
    compared = compare_all([pair(choice, ours) for choice in others], margin)
    if edges:
        reasons = dict.fromkeys(f"{choice.scheme}: {choice.edge}" for choice in edges)
        return f"{''.join(words)}; {'; '.join(reasons)}."
    known, undecided = compared["difference"].notna(), compared["verdict"] == "undecided"
    alike = compared.loc[known & ~undecided & ~(pd.to_numeric(compared["p_holm"]) < LEVEL), "scheme"].tolist()
    if alike:
        costs = {scheme: cost for scheme in alike if (cost := _cost(by_scheme[scheme], ours))}
        cheapest = min(costs, key=costs.__getitem__) if costs else None
        words.append(f". Not significantly different from it: {', '.join(alike)}")
        if cheapest is not None and costs[cheapest] < 0.95:
            words.append(f"; the cheapest of these is {cheapest}, in {costs[cheapest]:.2f} times the time of {best}")
    if undecided.any():
        reasons = dict.fromkeys(f"{c.scheme}: {c.edge}" for one in compared.loc[undecided, "pair"] for c in one.edges)
        words.append(f". Undecided: {'; '.join(reasons)}")
    return "".join(words) + "."


def _gain(comparison: Mapping[str, Any]) -> str:
    difference, low, high = (comparison[key] for key in ("difference", "low", "high"))
    if difference is None:
        return "without a seed in common with"
    interval = "" if low is None else f" ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"{100 * difference:+.2f} points{interval} against"


def _cost(ours: Choice, theirs: Choice) -> float | None:
    """Mean training seconds over those of another scheme."""
    seconds = [choice.shown.numbers("seconds.training") for choice in (ours, theirs)]
    means = [float(of_one[of_one > 0].mean()) for of_one in seconds]  # NaN without any
    return means[0] / means[1] if all(mean > 0 for mean in means) else None
