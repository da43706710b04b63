"""Each scheme at its own best learning rate, chosen on validation accuracy, and how much the choice matters."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

from normbench.analysis.columns import without
from normbench.analysis.comparisons import FRESH, Pairing, Versus, compare_all
from normbench.analysis.groups import Cell, Cells, Setting

OVER = ("complete", "diverged")
MISSING = "Every scheme was run at one lr only. Runs at several, such as lr=0.01,0.1,1 after run -m, would supply it."


@dataclass(frozen=True, eq=False)
class Choice:
    """The lr of one scheme in one setting.

    Args:
        setting: all but the lr.
        cells: by lr, ascending.
        grid: the lrs at which a run is over, with a result or diverged.
        means: validation accuracy at each lr of the grid; None where a run diverged.
        lr: the best; None where no run is over.
        on: seeds that were run at two lrs or more, which decide.
        fresh: seeds that `lr` alone has, with which it was not chosen; all of them where there was no choice.
    """

    setting: Setting
    scheme: str
    cells: dict[float, Cell]
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
    def shown(self) -> Cell:
        """The cell at the best lr; without one the first, so that what became of its runs is told."""
        return next(iter(self.cells.values())) if self.lr is None else self.cells[self.lr]

    @property
    def seeds(self) -> frozenset[Any]:
        return frozenset(entry.seed for cell in self.cells.values() for entry in cell.entries)

    @property
    def spent(self) -> frozenset[Any]:
        """Seeds that had a part in the choice."""
        return self.seeds - self.fresh if self.chosen else frozenset()


def choices(cells: Cells) -> dict[Setting, dict[str, Choice]]:
    """By setting without the lr, then by scheme."""
    found: dict[Setting, dict[str, dict[float, Cell]]] = defaultdict(lambda: defaultdict(dict))
    for setting, by_scheme in cells.settings.items():
        for scheme, cell in by_scheme.items():
            found[without(setting, "lr")][scheme][float(cell.entries[0].settings.get("lr") or 0.0)] = cell
    return {
        setting: {scheme: choose(setting, scheme, by_scheme[scheme]) for scheme in cells.schemes if scheme in by_scheme}
        for setting, by_scheme in found.items()
    }


def choose(setting: Setting, scheme: str, cells: dict[float, Cell]) -> Choice:
    """The lr with the smallest share of diverged runs, and among those the highest mean validation accuracy.

    An lr at which a run diverged is thus behind every one at which none did. Seeds that were run at one lr alone have
    no part in it: those of the best lr are fresh, and no winner's curse is on their mean. (Not the seeds that *all* lrs
    share: one run that failed would take its seed from the choice everywhere.)
    """
    over = {lr: {e.seed for e in cell.having(*OVER)} for lr, cell in sorted(cells.items())}
    grid = tuple(lr for lr in over if over[lr])
    times = Counter(seed for lr in grid for seed in over[lr])
    on = frozenset(seed for seed in times if times[seed] > 1) or frozenset(times)
    means: dict[float, float | None] = {}
    scores: dict[float, tuple[float, float]] = {}
    for lr in grid:
        runs = [e for e in cells[lr].having(*OVER) if e.seed in on] or cells[lr].having(*OVER)
        values = [v for e in runs if (v := e.summary.get("validation_accuracy")) is not None and e.status == "complete"]
        mean = sum(values) / len(values) if values else None
        diverged = sum(e.status == "diverged" for e in runs)
        means[lr] = None if diverged else mean
        scores[lr] = (diverged / len(runs), -mean if mean is not None else 0.0)
    best = min(grid, key=scores.__getitem__) if grid else None
    fresh = frozenset[Any]()
    if best is not None and len(grid) == 1:
        fresh = on
    elif best is not None and over[best] & on:  # without any of them, its other seeds have had to decide
        fresh = frozenset(over[best] - on)
    return Choice(setting, scheme, dict(sorted(cells.items())), grid, means, best, on, fresh)


def pair(ours: Choice, theirs: Choice | None) -> Pairing:
    """Both at their own best lr; on fresh seeds alone where there are three or more pairs of such."""
    if theirs is None:
        return Pairing(ours.setting, ours.scheme, ours.shown, None)
    both = Pairing(ours.setting, ours.scheme, ours.shown, theirs.shown)
    if not (ours.chosen or theirs.chosen):
        return both
    spent = ours.spent | theirs.spent
    fresh = (ours.fresh | theirs.fresh) - spent
    chosen = len(ours.fresh & theirs.fresh - spent) < FRESH
    return replace(both, seeds=None if chosen else fresh, chosen=chosen, taken=ours.seeds | theirs.seeds)


def at_best(cells: Cells, reference: str, margin: float) -> list[Versus]:
    """Each scheme against the reference, each at its own best lr."""
    return compare_all(
        [
            pair(choice, by_scheme.get(reference))
            for by_scheme in choices(cells).values()
            for choice in by_scheme.values()
            if choice.scheme != reference
        ],
        margin,
    )


def several(chosen: dict[Setting, dict[str, Choice]]) -> bool:
    """Whether any scheme was run at more than one lr in any setting."""
    return any(len(choice.cells) > 1 for by_scheme in chosen.values() for choice in by_scheme.values())
