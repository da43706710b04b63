"""The table in which each scheme has the learning rate that suits it best."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from normbench.analysis.best_lr import MISSING, Choice, choices, several
from normbench.analysis.columns import SCHEME, number, percent, setting_columns, where
from normbench.analysis.comparisons import COLUMNS, FRESH, Pairing, Versus, accuracies, how_to_read, row
from normbench.analysis.groups import Cells
from normbench.analysis.statistics import Comparison, estimate
from normbench.analysis.table import Column, Table


def own_lr_table(cells: Cells, found: Sequence[Versus], reference: str, margin: float) -> Table:
    """Test accuracy of each scheme at its own best lr, beside its comparison from `at_best`."""
    name, title = "own_lr", f"Against {reference}, each at its own best lr"
    columns = [
        SCHEME,
        *setting_columns(cells, "lr"),
        Column("lr", "best lr", number("{:g}")),
        Column("seeds", "seeds", numeric=False),
        Column("test_mean", "test accuracy %", percent),
        Column("test_low", "95% from", percent),
        Column("test_high", "to", percent),
        Column("test_n", "n"),
        Column("reference_lr", f"lr of {reference}", number("{:g}")),
        *COLUMNS,
    ]
    chosen = choices(cells)
    if not several(chosen):
        return Table(name, title, "", columns, [], MISSING)
    versus = {(v.pairing.setting, v.pairing.scheme): v for v in found}
    rows = []
    for setting, by_scheme in chosen.items():
        theirs = by_scheme.get(reference)
        for scheme, choice in by_scheme.items():
            fresh = choice.fresh if choice.chosen and len(choice.fresh) >= FRESH else None
            itself = Pairing(setting, scheme, choice.shown, None, fresh)
            v = versus.get((setting, scheme)) or Versus(itself, Comparison(0), None, None, None, None, "", "")
            line = row(v, reference, margin)
            if scheme == reference:
                line |= dict.fromkeys(("n", "unpaired_scheme", "unpaired_reference", "diverged_reference"))
            test = estimate(list(accuracies(v.pairing.runs(choice.shown)).values()))
            rows.append(
                where(cells, scheme, setting)
                | {"lr": choice.lr, "reference_lr": theirs.lr if theirs else None}
                | {"validation_mean": choice.means.get(choice.lr) if choice.lr is not None else None}
                | {"seeds": _seeds(choice, v.pairing.seeds), "test_n": test.n if test else 0}
                | {f"test_{key}": getattr(test, key, None) for key in ("mean", "low", "high", "median", "iqm")}
                | line
            )
    caption = (
        "Each scheme at the lr with its highest mean validation accuracy (an lr at which a run diverged comes behind "
        "all others), and its test accuracy there. The same seeds choose and tell, which flatters a little, unless "
        "three or more fresh seeds were run at the best lr alone: these then give the result by themselves. "
        f"Differences: minus {reference} at the best lr of its own. {how_to_read(found, margin)}"
    )
    return Table(name, title, caption, columns, rows)


def _seeds(choice: Choice, used: Collection[Any] | None) -> str:
    if not choice.chosen:
        return "one lr: nothing chosen" if choice.grid else "none"
    if used is None:
        return "the same seeds chose the lr"
    seeds = sorted(used)
    unbroken = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return "fresh: " + (f"{seeds[0]}..{seeds[-1]}" if unbroken else ", ".join(map(str, seeds)))
