"""How much the learning rate matters: the best, whether it lies at the edge, and the band of those that work."""

from __future__ import annotations

import math
from typing import Any

from normbench.analysis.best_lr import MISSING, OVER, Choice, choices, several
from normbench.analysis.groups import Groups, show
from normbench.analysis.reproduce import again
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, number, percent, row_start, setting_columns

NEAR = 0.01  # accuracy within one point of the best


def lr_table(groups: Groups) -> Table:
    """How much the lr matters: best, edge of the grid, width of the band that works."""
    name, title = "lr_stability", "How much the learning rate matters"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr"),
        Column("lrs", "lrs tried", numeric=False),
        Column("best_lr", "best lr", number("{:g}")),
        Column("validation_mean", "validation % there", percent),
        Column("band_text", "decades near the best of all", str, "band"),
        Column("own_band_text", "decades near its own best", str, "own_band"),
        Column("largest_stable_text", "largest stable lr", str, "largest_stable"),
        REMARKS,
        Column("command", "to look further", str, numeric=False),
    ]
    chosen = choices(groups)
    if not several(chosen):
        return Table(name, title, "", columns, [], MISSING)
    rows = []
    for setting, by_scheme in chosen.items():
        top = max((m for c in by_scheme.values() for m in c.means.values() if m is not None), default=None)
        rows += [row_start(groups, scheme, setting) | _row(choice, top) for scheme, choice in by_scheme.items()]
    every = [choice for by_scheme in chosen.values() for choice in by_scheme.values()]
    runs = sum(len(choice.groups[lr].having(*OVER)) for choice in every for lr in choice.grid)
    caption = (
        f"Validation accuracy, mean over the seeds that were run at two lrs or more, from {runs} runs. "
        "Decades: "
        "log10(highest / lowest) of the unbroken row of lrs around a scheme's best whose means lie within one point of "
        "the best of all schemes in the setting, or of its own best; 0.0: one lr alone, –: none; ≥: the row ends where "
        "the lrs tried end. An lr at which a run diverged is in no band. Largest stable lr: no run there diverged or "
        "ended at chance. The wider, the less the lr needs tuning."
    )
    return Table(name, title, caption, columns, rows)


def band(choice: Choice, best: float | None) -> tuple[float, ...]:
    """The unbroken row of lrs around the scheme's best whose means lie within one point of `best`."""
    near = [m is not None and best is not None and m >= best - NEAR - 1e-12 for m in choice.means.values()]
    if choice.lr is None or not near[middle := choice.grid.index(choice.lr)]:
        return ()
    low = high = middle
    while low and near[low - 1]:
        low -= 1
    while high + 1 < len(near) and near[high + 1]:
        high += 1
    return choice.grid[low : high + 1]


def _row(choice: Choice, top: float | None) -> dict[str, Any]:
    best = choice.means.get(choice.lr) if choice.lr is not None else None
    groups = choice.groups
    working = (
        lr for lr in choice.grid if groups[lr].count("complete") - groups[lr].at_chance == len(groups[lr].members)
    )
    stable = max(working, default=None)
    edge, command = _edge(choice)
    return {
        "lrs": ", ".join(show(lr) for lr in choice.groups),
        "seeds": " ".join(str(seed) for seed in sorted(choice.on)),
        "best_lr": choice.lr,
        "validation_mean": best,
        **_decades("band", choice, band(choice, top)),
        **_decades("own_band", choice, band(choice, best)),
        "largest_stable": stable,
        "largest_stable_text": _at_least("{:g}", stable, stable in choice.grid[-1:]),
        "remarks": "; ".join([*edge, *_without_result(choice)]),
        "command": command,
    }


def _decades(name: str, choice: Choice, lrs: tuple[float, ...]) -> dict[str, Any]:
    """The width of a band as a number and as text, with a sign where it ends where the lrs tried end."""
    width = math.log10(lrs[-1] / lrs[0]) if lrs else None
    ends = bool(lrs) and (lrs[0] == choice.grid[0] or lrs[-1] == choice.grid[-1])
    return {name: width, f"{name}_text": _at_least("{:.1f}", width, ends)}


def _at_least(pattern: str, value: float | None, more: bool) -> str:
    return "–" if value is None else ("≥ " if more else "") + pattern.format(value)


def _edge(choice: Choice) -> tuple[list[str], str]:
    """Where the best lr lies at the end of those tried: a remark with the next to try, and the command."""
    if choice.lr is None or not choice.chosen or choice.lr not in (choice.grid[0], choice.grid[-1]):
        return [], ""
    lowest = choice.lr == choice.grid[0]
    beyond = [lr for lr in choice.groups if (lr < choice.lr if lowest else lr > choice.lr)]  # begun, but none is over
    neighbour = choice.grid[1] if lowest else choice.grid[-2]
    following = (max(beyond) if lowest else min(beyond)) if beyond else float(f"{choice.lr**2 / neighbour:.3g}")
    word = "smallest" if lowest else "largest"
    words = f"best at the {word} lr {'that is over' if beyond else 'tried'}: add lr={show(following)}"
    return [words], again([choice.shown.members[0]], lr=[show(following)], seed=sorted(choice.on))


def _without_result(choice: Choice) -> list[str]:
    words = []
    for lr, group in choice.groups.items():
        if diverged := group.count("diverged"):
            words.append(f"{diverged} of {len(group.members)} diverged at lr {lr:g}")
        if group.at_chance:
            words.append(f"{group.at_chance} of {len(group.members)} at chance at lr {lr:g}")
        if lr not in choice.grid:
            words.append(f"{group.members[0].status} at lr {lr:g}")
    return words
