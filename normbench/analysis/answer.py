"""The statistics of a study: an answer in words, and the tables behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from normbench.analysis.batch_sizes import smallest_batch_table
from normbench.analysis.best_lr import (
    Choice,
    best_lr_table,
    choices,
    compare_at_best_lr,
    decisive_seeds,
    lr_table,
    several,
)
from normbench.analysis.comparisons import Comparison, comparisons
from normbench.analysis.groups import Groups, Setting, label
from normbench.analysis.inference_statistics import inference_losses, inference_table
from normbench.analysis.leaderboard import leaderboard, leaderboard_table
from normbench.analysis.notes import SYNTHETIC, shared_draws
from normbench.analysis.statistics import LEVEL, compare, estimate_accuracy
from normbench.analysis.tables import Table, format_list, format_p
from normbench.analysis.targets import time_table
from normbench.analysis.weight_perturbation import perturbation_table

SETTINGS, SCHEMES = 3, 3  # at most so many recommendations; from so many schemes on there is something to recommend
CHEAPER = 0.95  # times the seconds of another scheme


@dataclass(frozen=True)
class Options:
    """What a reader may choose.

    Args:
        reference: the scheme that others are compared with; None: `none`, or the first where the study has no `none`.
        margin: differences below it do not matter, in points of accuracy (0.5 = 0.005).
        targets: validation accuracies to time, from 0 to 1; None: those of `usual_targets`.
    """

    reference: str | None = None
    margin: float = 0.5
    targets: tuple[float, ...] | None = None


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
        comparisons(groups, reference, margin),
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
    by_verdict: dict[str | None, list[Comparison]] = {}
    for comparison in found:
        by_verdict.setdefault(comparison["verdict"], []).append(comparison)
    unsure = by_verdict.get("inconclusive", [])
    if not found:
        words = [f"Nothing to compare: all runs are of {reference}."]
    elif better := sorted(by_verdict.get("better", []), key=_difference, reverse=True):
        words = [f"Better than {reference}{how}: {format_list([_format_measured(c) for c in better])}."]
    else:
        words = [f"No scheme is shown to be better than {reference}{how}."]
        if unsure:
            words[0] += f" Closest: {_format_measured(max(unsure, key=_difference))}: inconclusive."
    if any(comparison["tried"] > 1 for comparison in found):
        words[0] += " Where the same seeds chose the lrs, intervals and p values allow for their number."
    rest = {
        "worse": "worse",
        "equivalent": f"equivalent within {options.margin:g} points",
        "inconclusive": "inconclusive",
        "undecided": "undecided, as a best lr lies at the edge of those tried",
        None: "without a pair of results",
    }
    counted = [
        f"{len(some)} {word} ({format_list([_format_name(c) for c in some])})"
        for verdict, word in rest.items()
        if (some := by_verdict.get(verdict))
    ]
    if counted:
        words.append(f"Of {len(found)} comparison{'s' * (len(found) > 1)}: {'; '.join(counted)}.")
    words = [*recommendations(groups, reference), *words, *inference_losses(groups), *shared_draws(groups)]
    return [SYNTHETIC, *words] if groups.synthetic else words


def check(groups: Groups, options: Options) -> tuple[str, float]:
    """The scheme to compare with, and the margin as a fraction. Raises ValueError."""
    if not 0 < options.margin < 100:
        raise ValueError(f"the margin is in points of accuracy, above 0: got {options.margin:g}. The usual is 0.5.")
    if wrong := [f"{target:g}" for target in options.targets or () if not 0 < target < 1]:
        raise ValueError(f"targets are accuracies between 0 and 1: got {', '.join(wrong)}. 95% is 0.95.")
    if options.reference is None:
        return ("none" if "none" in groups.schemes else groups.schemes[0]), options.margin / 100
    if options.reference not in groups.schemes:
        raise ValueError(
            f"the reference is one of the study's schemes: got {options.reference!r}. "
            f"Take one of: {', '.join(groups.schemes)}."
        )
    return options.reference, options.margin / 100


def _difference(comparison: Comparison) -> float:
    return float(comparison["difference"])


def _format_name(comparison: Comparison) -> str:
    """Such as "selu at batch size 4, 2 of 5 diverged"; of what is undecided, the lr to add."""
    setting, ours, pair = label(comparison["setting"], ""), comparison["ours"], comparison["pair"]
    statuses = set(ours.runs["status"]) - {"complete", "diverged"}
    others = [f"{arm.scheme}: {arm.diverged}" for arm in (comparison["theirs"],) if arm.diverged]
    why = [ours.diverged, *others, *(statuses if len(ours.having(*statuses)) == len(ours.members) else ())]
    why += [f"add lr={choice.beyond:g} for {choice.scheme}" for choice in pair.edges]
    return ", ".join(filter(None, [comparison["scheme"] + (f" at {setting}" if setting else ""), *why]))


def _format_measured(comparison: Comparison) -> str:
    difference, low, high, n = (comparison[key] for key in ("difference", "low", "high", "n"))
    words = f"{_format_name(comparison)}, {100 * difference:+.2f} points"
    if low is None:
        return f"{words} ({n} {'pair' if n == 1 else 'pairs'}: no interval)"
    p = format_p(comparison["p_holm"], "= ")
    return f"{words} (95% interval {100 * low:+.2f} to {100 * high:+.2f}, {n} pairs, p {p} after Holm)"


def recommendations(groups: Groups, reference: str) -> list[str]:
    """A few sentences for each setting but the lr, where there are few settings and enough schemes.

    They name the schemes that can be the best, each at its own best lr (`shortlist`), and the numbers of the one with
    the highest mean validation accuracy over the seeds that chose the lrs. Where fresh seeds give these numbers, their
    intervals are Student's; where the same seeds chose and estimate, they hold for all schemes and lrs at once
    (Bonferroni). After a round of fresh seeds only schemes that were in it are compared. Nothing is recommended where
    no run does better than chance, or where the best lr of the first scheme, or of the reference, lies at the edge of
    those tried.
    """
    chosen = choices(groups)
    if not 1 <= len(chosen) <= SETTINGS:
        return []
    found = [_recommend(setting, by_scheme, reference) for setting, by_scheme in chosen.items()]
    return [sentence for sentence in found if sentence]


def shortlist(compared: Mapping[str, Choice]) -> list[str]:
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


def _recommend(setting: Setting, by_scheme: Mapping[str, Choice], reference: str) -> str:
    known = {scheme: choice for scheme, choice in by_scheme.items() if choice.accuracies}
    if len(known) < SCHEMES:
        return ""
    where = f" at {name}" if (name := label(setting, "")) else " here"
    if all(choice.shown.at_chance == choice.shown.count("complete") for choice in known.values()):
        return f"Nothing is recommended{where}: no run does better than chance."
    best = max(known.values(), key=_mean)
    edges = [choice for choice in (best, known.get(reference)) if choice and choice.edge]
    round_of_fresh = best.chosen and best.confirmed
    pool = {scheme: choice for scheme, choice in known.items() if choice.confirmed or not round_of_fresh}
    decided = {scheme: choice for scheme, choice in pool.items() if not choice.edge}
    if edges or len(decided) < 2:
        reasons = "; ".join(f"{choice.scheme}: {choice.edge}" for choice in known.values() if choice.edge)
        return f"Undecided{where}: highest so far {_numbers(best, known, reference)}; {reasons}."
    able = shortlist(decided)
    best = max((decided[scheme] for scheme in able), key=_mean)
    undecided = [f"{scheme}: {choice.edge}" for scheme, choice in pool.items() if choice.edge]
    which = [" that were run on fresh seeds"] * round_of_fresh
    which += [" whose best lr lies inside those tried"] * bool(undecided)
    compared = f"the {len(decided)} schemes{' and'.join(which)}"
    numbers = _numbers(best, known, reference)
    if len(able) == 1:
        words = [f"Recommended{where}: {numbers}. With 95% confidence it is the best of {compared}."]
    else:
        lost = {scheme: decided[scheme].decisive.diverged for scheme in able}
        names = ", ".join(scheme + (f" ({lost[scheme]})" if lost[scheme] else "") for scheme in able)
        words = [
            f"Cannot be told apart{where}: {names} (with 95% confidence the best of {compared} is among "
            f"them). Highest in validation accuracy: {numbers}{_cheapest(best, able, decided)}."
        ]
    if not round_of_fresh and "95% interval" in numbers:
        among = f"{_among(known)} schemes and lrs" if _among(known) > len(known) else f"{len(known)} schemes"
        words.append(f"These intervals hold for all {among} at once, as the same seeds chose among them.")
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


def _numbers(ours: Choice, known: Mapping[str, Choice], reference: str) -> str:
    """ "batch, 95.70% test accuracy (95% interval 95.31 to 96.02, 10 fresh seeds), +1.10 points (+0.80 to +1.40)
    against none, in 1.60 times its training time".
    """
    fresh = ours.chosen and ours.confirmed
    among = 1 if fresh else _among(known)
    test = estimate_accuracy(list(ours.decisive.accuracies().values()), among)
    assert test is not None
    words = [f"{ours.scheme}, {100 * test.mean:.2f}% test accuracy"]
    if test.low is not None and test.high is not None:
        seeds = f"{test.n} {'fresh ' * fresh}seeds"
        words.append(f" (95% interval {100 * test.low:.2f} to {100 * test.high:.2f}, {seeds})")
    if ours.decisive.diverged:
        words.append(f", {ours.decisive.diverged} and count at chance")
    theirs = known.get(reference)
    if theirs is not None and theirs is not ours:
        pairs_are_fresh = fresh and decisive_seeds(ours, theirs)[1] == 1
        gain = compare_two(ours, theirs, 1 if pairs_are_fresh else _among(known))
        if gain["difference"] is None:
            words.append(f", without a seed in common with {reference}")
        else:
            low, high = gain["low"], gain["high"]
            interval = "" if low is None else f" ({100 * max(low, -1):+.2f} to {100 * min(high, 1):+.2f})"
            words.append(f", {100 * gain['difference']:+.2f} points{interval} against {reference}")
        if cost := _cost(ours, theirs):
            words.append(f", in {cost:.2f} times its training time")
    return "".join(words)


def _among(known: Mapping[str, Choice]) -> int:
    """From how many schemes and lrs the first one was chosen."""
    return sum(max(1, len(choice.means)) for choice in known.values())


def _cheapest(best: Choice, able: list[str], decided: Mapping[str, Choice]) -> str:
    costs = {scheme: cost for scheme in able if scheme != best.scheme and (cost := _cost(decided[scheme], best))}
    cheapest = min(costs, key=costs.__getitem__, default=None)
    if cheapest is None or costs[cheapest] > CHEAPER:
        return ""
    return f"; the cheapest is {cheapest}, in {costs[cheapest]:.2f} times the time of {best.scheme}"


def _mean(choice: Choice) -> float:
    return choice.mean or 0.0


def _cost(ours: Choice, theirs: Choice) -> float | None:
    """Mean training seconds over those of another scheme."""
    means = []
    for choice in (ours, theirs):
        seconds = [value for value in choice.shown.numbers("seconds.training").values() if value > 0]
        means += [sum(seconds) / len(seconds)] if seconds else []
    return means[0] / means[1] if len(means) == 2 else None
