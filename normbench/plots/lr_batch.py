"""Which learning rates and batch sizes work together: a map per scheme."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from normbench.analysis.groups import Group, Groups, Setting, label, show
from normbench.analysis.measured import SCHEMES, without
from normbench.plots.drawing import Figure, finish, grid, omitted, panels
from normbench.plots.errors import errors

NAME, TITLE = "lr_batch", "Learning rate and batch size together"
MAPS = 3
MARKS = {"diverged": "D", "unsupported": "U"}
Field = dict[tuple[float, float], Group]  # (lr, batch size) -> group


@dataclass(frozen=True)
class Square:
    """What one place of a map shows: the mean test error of the complete runs, and a text."""

    error: float | None
    text: str


def draw(groups: Groups) -> list[Figure]:
    fields: dict[Setting, dict[str, Field]] = defaultdict(lambda: defaultdict(dict))
    for setting, by_scheme in groups.settings.items():
        for scheme, group in by_scheme.items():
            place = group.members[0].values.get("lr") or 0, group.members[0].values.get("batch_size") or 0
            fields[without(setting, "lr", "batch_size")][scheme][place] = group
    wide = {rest: field for rest, field in fields.items() if all(len(values) > 1 for values in _axes(field))}
    if not wide:
        missing = "Not drawn: it takes runs at two learning rates and two batch sizes or more (of the same setting)."
        return [Figure(NAME, TITLE, missing)]
    shown = list(wide)[:MAPS]
    maps = [(rest, scheme) for rest in shown for scheme in [s for s in groups.schemes if s in wide[rest]][:SCHEMES]]
    rows, columns = grid(len(maps))
    lrs, sizes = (max(len(_axes(wide[rest])[i]) for rest in shown) for i in (0, 1))
    width, height = max(2.0, min(0.5 + 0.5 * sizes, 11 / columns)), 0.75 + 0.36 * lrs
    canvas, axes = panels(rows, columns, width, height)
    squares = {key: {p: square(c) for p, c in wide[key[0]][key[1]].items()} for key in maps}
    known = [s.error for by_place in squares.values() for s in by_place.values() if s.error is not None]
    norm = LogNorm(max(min(known, default=1.0), 0.01), max(*known, 0.1) if known else 100.0)
    flat = [ax for row in axes for ax in row]
    for ax, (rest, scheme) in zip(flat, maps, strict=False):
        _draw_map(ax, squares[rest, scheme], _axes(wide[rest]), norm)
        ax.set_title(", ".join(filter(None, (scheme, label(rest, "") if len(shown) > 1 else ""))), fontweight="bold")
    for ax in flat[len(maps) :]:
        ax.set_visible(False)
    canvas.supxlabel("batch size", fontsize=9)
    canvas.supylabel("learning rate", fontsize=9)
    runs = sum(len(errors(group)) for rest in shown for field in wide[rest].values() for group in field.values())
    parts = [
        f"Test error in percent at the end of training: means over seeds, from {runs} runs. The darker, the higher",
        "(logarithmic; one scale for all maps). Framed: the lowest of each batch size. D: all runs diverged.",
        "U: unsupported. C: a run ended at chance. Where not all runs finished, how many did: 2/3. Empty: not run, or",
        "without a result for another reason. All seeds count; the tables have their intervals.",
        omitted(MAPS, wide, "settings"),
        omitted(SCHEMES, {s for rest in shown for s in wide[rest]}, "schemes"),
    ]
    return [finish(NAME, TITLE, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def square(group: Group) -> Square:
    found, marks = errors(group), [mark for status, mark in MARKS.items() if group.having(status)]
    if not found:
        return Square(None, marks[0] if marks else "")
    mean = sum(found) / len(found)
    text = f"{mean:.3g}" if mean < 99.95 else "100"
    text += " C" if any(run.summary.get("at_chance") for run in group.having("complete")) else ""
    return Square(mean, text if len(found) == len(group.members) else f"{text}\n{len(found)}/{len(group.members)}")


def _axes(field: dict[str, Field]) -> tuple[list[float], list[float]]:
    places = {place for by_place in field.values() for place in by_place}
    return sorted({lr for lr, _ in places}), sorted({size for _, size in places})


def _draw_map(
    ax: Axes, squares: dict[tuple[float, float], Square], axes: tuple[list[float], list[float]], norm: LogNorm
) -> None:
    from matplotlib import colormaps

    lrs, sizes = axes
    colors = colormaps["cividis_r"]
    for (lr, size), found in squares.items():
        x, y = sizes.index(size), lrs.index(lr)
        color = "#F1F1F1" if found.error is None else colors(float(norm(max(found.error, 0.01))))
        hatch = "////" if found.text == "D" else None
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white", linewidth=1, hatch=hatch))
        dark = found.error is not None and float(np.dot(color[:3], (0.3, 0.59, 0.11))) < 0.5
        box = {"facecolor": "#F1F1F1", "edgecolor": "none", "pad": 1} if hatch else None
        ax.text(
            x + 0.5, y + 0.5, found.text, ha="center", va="center", fontsize=7, color="w" if dark else "k", bbox=box
        )
    for size in sizes:
        known = {lr: s.error for (lr, other), s in squares.items() if other == size and s.error is not None}
        if known:
            best = min(known, key=lambda lr: known[lr])
            ax.add_patch(Rectangle((sizes.index(size) + 0.04, lrs.index(best) + 0.04), 0.92, 0.92, fill=False))
    ax.set_xlim(0, len(sizes))
    ax.set_ylim(0, len(lrs))
    ax.set_xticks(np.arange(len(sizes)) + 0.5, [show(size) for size in sizes])
    ax.set_yticks(np.arange(len(lrs)) + 0.5, [show(lr) for lr in lrs])
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
