"""The statistics of a study: an answer in words, and the tables behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from normbench.analysis.best_lr import at_best, choices, several
from normbench.analysis.best_lr_table import own_lr_table
from normbench.analysis.columns import probability
from normbench.analysis.comparisons import Versus, comparisons
from normbench.analysis.differences import differences
from normbench.analysis.groups import Cells, label
from normbench.analysis.inference_statistics import inference_table
from normbench.analysis.leaderboard import leaderboard
from normbench.analysis.leaderboard_table import leaderboard_table
from normbench.analysis.lr_stability import lr_table
from normbench.analysis.recommendation import recommendations
from normbench.analysis.smallest_batch import smallest_batch_table
from normbench.analysis.table import Table
from normbench.analysis.targets import time_table
from normbench.analysis.weight_perturbation import perturbation_table
from normbench.analysis.wording import SYNTHETIC

__all__ = ["Options", "answer", "check", "differences", "tables"]

NAMED = 3  # comparisons that a sentence names


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


def tables(cells: Cells, options: Options | None = None) -> list[Table]:
    """Every table, in the page's order; one without data says in its note what would supply them.

    Raises:
        ValueError: an option that fits no study, or a reference that this one does not have.
    """
    options = options or Options()
    reference, margin = check(cells, options)
    best = at_best(cells, reference, margin)
    found = [
        leaderboard_table(leaderboard(cells)),
        comparisons(cells, reference, margin)[0],
        own_lr_table(cells, best, reference, margin),
        lr_table(cells),
        smallest_batch_table(cells, best, reference, margin),
        time_table(cells, options.targets),
        inference_table(cells),
    ]
    found += [table] if (table := perturbation_table(cells)) is not None else []
    return [replace(t, caption=f"{SYNTHETIC} {t.caption}") if cells.synthetic and t.rows else t for t in found]


def answer(cells: Cells, options: Options | None = None) -> list[str]:
    """Which normalization here, in a sentence or two: from the comparisons at each scheme's own best lr."""
    options = options or Options()
    reference, margin = check(cells, options)
    found = at_best(cells, reference, margin)
    how = ", each at its own best lr" if several(choices(cells)) else ""
    better = sorted(_having(found, "better"), key=lambda v: -(v.result.difference or 0.0))
    unsure = _having(found, "inconclusive")
    if not found:
        words = [f"Nothing to compare: all runs are of {reference}."]
    elif better:
        words = [f"Better than {reference}{how}: {_listed([_measured(v) for v in better])}."]
    else:
        words = [f"No scheme is shown to be better than {reference}{how}."]
        if unsure:
            words[0] += f" Closest: {_measured(max(unsure, key=lambda v: v.result.difference or 0.0))}: inconclusive."
    rest = {
        "worse": _having(found, "worse"),
        f"equivalent within {options.margin:g} points": _having(found, "equivalent"),
        "inconclusive": unsure,
        "without a pair of results": [v for v in found if v.verdict is None],
    }
    counted = [f"{len(some)} {word} ({_listed([_name(v) for v in some])})" for word, some in rest.items() if some]
    if counted:
        words.append(f"Of {len(found)} comparison{'s' * (len(found) > 1)}: {'; '.join(counted)}.")
    words = [*recommendations(cells, reference, margin), *words]
    return [SYNTHETIC, *words] if cells.synthetic else words


def check(cells: Cells, options: Options) -> tuple[str, float]:
    """The scheme to compare with, and the margin as a fraction. Raises ValueError."""
    if not 0 < options.margin < 100:
        raise ValueError(f"the margin is in points of accuracy, above 0: got {options.margin:g}. The usual is 0.5.")
    if not options.targets or not all(0 < target < 1 for target in options.targets):
        got = ", ".join(f"{target:g}" for target in options.targets) or "none"
        raise ValueError(f"targets are accuracies between 0 and 1: got {got}. 95% is 0.95.")
    if options.reference is None:
        return ("none" if "none" in cells.schemes else cells.schemes[0]), options.margin / 100
    if options.reference not in cells.schemes:
        raise ValueError(
            f"the reference is one of the study's schemes: got {options.reference!r}. "
            f"Take one of: {', '.join(cells.schemes)}."
        )
    return options.reference, options.margin / 100


def _having(found: Sequence[Versus], verdict: str) -> list[Versus]:
    return [v for v in found if v.verdict == verdict]


def _name(versus: Versus) -> str:
    """Such as "selu at batch size 4, diverged"."""
    pairing = versus.pairing
    setting, statuses = label(pairing.setting, ""), {e.status for e in pairing.runs(pairing.cell)}
    why = f", {statuses.pop()}" if len(statuses) == 1 and statuses != {"complete"} else ""
    return pairing.scheme + (f" at {setting}" if setting else "") + why


def _measured(versus: Versus) -> str:
    result = versus.result
    words = f"{_name(versus)}, {100 * (result.difference or 0.0):+.2f} points"
    if result.low is not None and result.high is not None:
        words += f" (95% interval {100 * result.low:+.2f} to {100 * result.high:+.2f}, {result.n} pairs,"
        words += f" p {probability(versus.p, '= ')} after Holm)"
    else:
        words += f" ({result.n} {'pair' if result.n == 1 else 'pairs'}: no interval)"
    return words


def _listed(words: Sequence[str]) -> str:
    more = len(words) - NAMED
    return "; ".join(words[:NAMED]) + (f"; and {more} more" if more > 0 else "")
