"""The statistics of a study: an answer in words, and the tables behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from normbench.analysis.best_lr import (
    Choice,
    best_lr_table,
    choices,
    compare_at_best_lr,
    pair,
    several,
    smallest_batch_table,
)
from normbench.analysis.comparisons import LEVEL, Versus, compare_all, comparisons
from normbench.analysis.groups import Groups, Setting, label
from normbench.analysis.inference_statistics import inference_table
from normbench.analysis.leaderboard import leaderboard, leaderboard_table
from normbench.analysis.lr_stability import lr_table
from normbench.analysis.notes import SYNTHETIC
from normbench.analysis.statistics import Comparison, estimate
from normbench.analysis.tables import Table, format_p
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
    better = sorted(_having(found, "better"), key=_difference, reverse=True)
    unsure = _having(found, "inconclusive")
    if not found:
        words = [f"Nothing to compare: all runs are of {reference}."]
    elif better:
        words = [f"Better than {reference}{how}: {_format_list([_format_measured(v) for v in better])}."]
    else:
        words = [f"No scheme is shown to be better than {reference}{how}."]
        if unsure:
            words[0] += f" Closest: {_format_measured(max(unsure, key=_difference))}: inconclusive."
    rest = {
        "worse": _having(found, "worse"),
        f"equivalent within {options.margin:g} points": _having(found, "equivalent"),
        "inconclusive": unsure,
        "without a pair of results": [v for v in found if v.verdict is None],
    }
    counted = [
        f"{len(some)} {word} ({_format_list([_format_name(v) for v in some])})" for word, some in rest.items() if some
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


def _having(found: Sequence[Versus], verdict: str) -> list[Versus]:
    return [v for v in found if v.verdict == verdict]


def _difference(versus: Versus) -> float:
    return versus.result.difference or 0.0


def _format_name(versus: Versus) -> str:
    """Such as "selu at batch size 4, diverged"."""
    pairing = versus.pairing
    setting, statuses = label(pairing.setting, ""), set(pairing.arms[0].runs["status"])
    why = f", {statuses.pop()}" if len(statuses) == 1 and statuses != {"complete"} else ""
    return pairing.scheme + (f" at {setting}" if setting else "") + why


def _format_measured(versus: Versus) -> str:
    result = versus.result
    words = f"{_format_name(versus)}, {100 * (result.difference or 0.0):+.2f} points"
    if result.low is not None and result.high is not None:
        words += f" (95% interval {100 * result.low:+.2f} to {100 * result.high:+.2f}, {result.n} pairs,"
        words += f" p {format_p(versus.p, '= ')} after Holm)"
    else:
        words += f" ({result.n} {'pair' if result.n == 1 else 'pairs'}: no interval)"
    return words


def _format_list(words: Sequence[str]) -> str:
    more = len(words) - NAMED
    return "; ".join(words[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def recommendations(groups: Groups, reference: str, margin: float) -> list[str]:
    """A sentence for each setting but the lr, where there are few of them and enough schemes; each at its own best lr.

    The scheme is the one of the highest mean validation accuracy, so that its test accuracy was not what chose it.
    Schemes are "not told apart" from it, that is, not significantly different, by the paired t test over the seeds at
    5% after Holm; pairs are those of the table of best lrs, fresh seeds included.

    Args:
        margin: of equivalence, as a fraction.
    """
    chosen = choices(groups)
    if not 1 <= len(chosen) <= SETTINGS:
        return []
    found = [_recommend(setting, by_scheme, reference, margin) for setting, by_scheme in chosen.items()]
    return [sentence for sentence in found if sentence]


def _recommend(setting: Setting, by_scheme: Mapping[str, Choice], reference: str, margin: float) -> str:
    means = {scheme: mean for scheme, choice in by_scheme.items() if (mean := _validation(choice)) is not None}
    if len(means) < SCHEMES:
        return ""
    best = max(means, key=means.__getitem__)
    ours, others = by_scheme[best], [by_scheme[scheme] for scheme in means if scheme != best]
    where = label(setting, "")
    test = estimate(ours.shown.numbers("test_accuracy").tolist())
    assert test is not None
    words = [f"Recommended{f' at {where}' if where else ' here'}: {best}, {100 * test.mean:.2f}% test accuracy"]
    if test.low is not None and test.high is not None:
        words.append(f" (95% interval {100 * test.low:.2f} to {100 * test.high:.2f}, {test.n} seeds)")
    if best != reference and reference in means:
        [versus] = compare_all([pair(ours, by_scheme[reference])], margin)
        words.append(f", {_gain(versus.result)} {reference}")
        if cost := _cost(ours, by_scheme[reference]):
            words.append(f", in {cost:.2f} times its training time")
    compared = compare_all([pair(choice, ours) for choice in others], margin)
    alike = [v.pairing.scheme for v in compared if v.result.difference is not None and (v.p is None or v.p >= LEVEL)]
    if alike:
        costs = {scheme: cost for scheme in alike if (cost := _cost(by_scheme[scheme], ours))}
        cheapest = min(costs, key=costs.__getitem__) if costs else None
        words.append(f". Not told apart from it: {', '.join(alike)}")
        if cheapest is not None and costs[cheapest] < 0.95:
            words.append(f"; the cheapest of these is {cheapest}, in {costs[cheapest]:.2f} times the time of {best}")
    return "".join(words) + "."


def _validation(choice: Choice) -> float | None:
    """Mean validation accuracy at the best lr; None where a run there has none."""
    if choice.lr is None or not len(choice.shown.numbers("test_accuracy")):
        return None
    return choice.means.get(choice.lr)


def _gain(result: Comparison) -> str:
    if result.difference is None:
        return "without a seed in common with"
    interval = ""
    if result.low is not None and result.high is not None:
        interval = f" ({100 * result.low:+.2f} to {100 * result.high:+.2f})"
    return f"{100 * result.difference:+.2f} points{interval} against"


def _cost(ours: Choice, theirs: Choice) -> float | None:
    """Mean training seconds over those of another scheme."""
    seconds = [choice.shown.numbers("seconds.training") for choice in (ours, theirs)]
    means = [float(of_one[of_one > 0].mean()) for of_one in seconds]  # NaN without any
    return means[0] / means[1] if all(mean > 0 for mean in means) else None
