"""The statistics of a study: an answer in words, and the tables behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from normbench.analysis.batch_sizes import smallest_batch_table
from normbench.analysis.best_lr import best_lr_table, choices, compare_at_best_lr, lr_table, several
from normbench.analysis.comparisons import Comparison, comparisons
from normbench.analysis.groups import Groups, label
from normbench.analysis.instrument_tables import inference_losses, inference_table, mixture_table, perturbation_table
from normbench.analysis.leaderboard import leaderboard, leaderboard_table
from normbench.analysis.notes import SYNTHETIC, shared_draws, updates_in_time
from normbench.analysis.shortlist import recommendations, shortlist_table
from normbench.analysis.tables import Table, format_list, format_p
from normbench.analysis.targets import time_table


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
        shortlist_table(groups, reference),
        comparisons(groups, reference, margin),
        best_lr_table(groups, best, reference, margin),
        lr_table(groups),
        smallest_batch_table(groups, best, reference, margin),
        time_table(groups, options.targets),
        inference_table(groups),
    ]
    found += [table for made in (perturbation_table, mixture_table) if (table := made(groups)) is not None]
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
    words = [*recommendations(groups, reference), *words, *updates_in_time(groups)]
    words += [*inference_losses(groups), *shared_draws(groups)]
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
