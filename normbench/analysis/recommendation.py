"""Which normalization to use here, in a sentence per setting, with its interval and its cost."""

from __future__ import annotations

from collections.abc import Mapping

from normbench.analysis.best_lr import Choice, choices, pair
from normbench.analysis.comparisons import LEVEL, accuracies, compare_all
from normbench.analysis.groups import Cells, Setting, label
from normbench.analysis.statistics import Comparison, estimate
from normbench.runs.read import flat

SETTINGS, SCHEMES = 3, 3  # at most so many sentences; from so many schemes on there is something to recommend


def recommendations(cells: Cells, reference: str, margin: float) -> list[str]:
    """A sentence for each setting but the lr, where there are few of them and enough schemes; each at its own best lr.

    The scheme is the one of the highest mean validation accuracy, so that its test accuracy was not what chose it.
    Schemes are "not told apart" from it by the paired t test over the seeds, at 5% after Holm; pairs are those of the
    table of own best lrs, fresh seeds included.

    Args:
        margin: of equivalence, as a fraction.
    """
    chosen = choices(cells)
    if not 1 <= len(chosen) <= SETTINGS:
        return []
    found = [_recommend(setting, by_scheme, reference, margin) for setting, by_scheme in chosen.items()]
    return [sentence for sentence in found if sentence]


def _recommend(setting: Setting, by_scheme: Mapping[str, Choice], reference: str, margin: float) -> str:
    able = {scheme: choice for scheme, choice in by_scheme.items() if _merit(choice) is not None}
    if len(able) < SCHEMES:
        return ""
    best = max(able, key=lambda scheme: _merit(able[scheme]) or 0.0)
    where = label(setting, "")
    test = estimate(list(accuracies(able[best].shown.entries).values()))
    assert test is not None
    words = [f"Recommended{f' at {where}' if where else ' here'}: {best}, {100 * test.mean:.2f}% test accuracy"]
    if test.low is not None and test.high is not None:
        words.append(f" (95% interval {100 * test.low:.2f} to {100 * test.high:.2f}, {test.n} seeds)")
    if best != reference and reference in able:
        [versus] = compare_all([pair(able[best], able[reference])], margin)
        words.append(f", {_gain(versus.result)} {reference}")
        if cost := _cost(able[best], able[reference]):
            words.append(f", in {cost:.2f} times its training time")
    alike = _alike(best, able, margin)
    if alike:
        costs = {scheme: cost for scheme in alike if (cost := _cost(able[scheme], able[best]))}
        cheapest = min(costs, key=costs.__getitem__) if costs else None
        words.append(f". Not told apart from it: {', '.join(alike)}")
        if cheapest is not None and costs[cheapest] < 0.95:
            words.append(f"; the cheapest of these is {cheapest}, in {costs[cheapest]:.2f} times the time of {best}")
    return "".join(words) + "."


def _merit(choice: Choice) -> float | None:
    """Mean validation accuracy at the best lr; None where a run there has none."""
    return None if choice.lr is None or not accuracies(choice.shown.entries) else choice.means.get(choice.lr)


def _gain(result: Comparison) -> str:
    if result.difference is None:
        return "without a seed in common with"
    interval = ""
    if result.low is not None and result.high is not None:
        interval = f" ({100 * result.low:+.2f} to {100 * result.high:+.2f})"
    return f"{100 * result.difference:+.2f} points{interval} against"


def _alike(best: str, able: Mapping[str, Choice], margin: float) -> list[str]:
    found = compare_all([pair(choice, able[best]) for scheme, choice in able.items() if scheme != best], margin)
    told = [v for v in found if v.result.difference is not None]
    return [v.pairing.scheme for v in told if v.p is None or v.p >= LEVEL]


def _cost(ours: Choice, theirs: Choice) -> float | None:
    """Mean training seconds over those of another scheme."""
    means = []
    for choice in (ours, theirs):
        seconds = [flat(entry.summary).get("seconds.training") for entry in choice.shown.having("complete")]
        known = [float(value) for value in seconds if value]
        means.append(sum(known) / len(known) if known else 0.0)
    return means[0] / means[1] if means[0] and means[1] else None
