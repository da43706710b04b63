"""Which learning rates and batch sizes work together: a map per scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from normbench.analysis.groups import order, show
from normbench.plots.drawing import grid, omitted, panel_grid
from normbench.plots.view import SCHEMES, Drawn, View

if TYPE_CHECKING:
    import pandas as pd

MARKS = {"diverged": "D", "unsupported": "U"}
DARK = "#111111"  # not the ink of the page: it stands on a coloured square
FLOOR = 0.01  # percent: the lowest error of the scale of colours


def draw(view: View) -> Drawn | None:
    """Of the setting that the study is about (`View.ranked`)."""
    axes = ["lr", "batch_size"]
    if not set(axes) <= set(view.groups.varying):
        return None
    runs, settings = view.panels(view.every, *axes, most=1)
    if runs["lr"].nunique() < 2 or runs["batch_size"].nunique() < 2:
        return None
    schemes = order(runs["scheme"])
    places = [sorted(set(runs[key])) for key in axes]
    squares = {
        scheme: {place: square(group) for place, group in runs[runs["scheme"] == scheme].groupby(axes)}
        for scheme in view.few(schemes)
    }
    _, columns = grid(len(squares))
    width, height = max(2.0, min(0.5 + 0.5 * len(places[1]), 11 / columns)), 0.75 + 0.36 * len(places[0])
    canvas, flat = panel_grid(len(squares), width, height)
    known = [max(error, FLOOR) for of_one in squares.values() for error, _ in of_one.values() if error is not None]
    norm = LogNorm(min(known, default=1.0), max([*known, 0.1]))
    for ax, (scheme, found) in zip(flat, squares.items(), strict=True):
        _map(ax, found, places, norm)
        ax.set_title(scheme, fontweight="bold")
    canvas.supxlabel("batch size", fontsize=9)
    canvas.supylabel("learning rate", fontsize=9)
    done = runs["status"].eq("complete").sum()
    by_scheme = {scheme: list(lowest(found).values()) for scheme, found in squares.items()}
    paths = [f"{scheme} {show(lrs[0])} to {show(lrs[-1])}" for scheme, lrs in by_scheme.items() if len(lrs) > 1]
    parts = [
        f"From its smallest batch to its largest, the best learning rate of a scheme goes from: {'; '.join(paths)}."
        * bool(paths),
        f"Test error in percent at the end of training: means over seeds, from {int(done)} runs. The darker, the",
        "higher (logarithmic; one scale for all maps).",
        "Framed: the lowest of each batch size. D: all runs diverged. U: unsupported. C: a run ended at chance. Where",
        "not all runs finished, how many did: 2/3. Empty: not run, or without a result for another reason.",
        omitted(1, settings, "settings"),
        omitted(SCHEMES, len(schemes), "schemes"),
    ]
    return Drawn(canvas, view.line(runs, *axes), " ".join(filter(None, parts)))


def square(group: pd.DataFrame) -> tuple[float | None, str]:
    """What one place of a map shows: the mean test error of the complete runs, and a text."""
    done = group[(group["status"] == "complete") & group["test_accuracy"].notna()]
    if done.empty:
        return None, next((mark for status, mark in MARKS.items() if group["status"].eq(status).any()), "")
    mean = float(100 * (1 - done["test_accuracy"].astype(float)).mean())
    text = f"{mean:.3g}" if mean < 99.95 else "100"
    text += " C" if done["at_chance"].eq(True).any() else ""
    return mean, text if len(done) == len(group) else f"{text}\n{len(done)}/{len(group)}"


def lowest(squares: dict[Any, tuple[float | None, str]]) -> dict[Any, Any]:
    """Batch size, ascending -> the lr with the lowest error."""
    known = sorted(((size, error, lr) for (lr, size), (error, _) in squares.items() if error is not None), reverse=True)
    return dict(sorted({size: lr for size, _, lr in known}.items()))


def _map(ax: Axes, squares: dict[Any, tuple[float | None, str]], places: list[list[Any]], norm: Any) -> None:
    lrs, sizes = places
    for (lr, size), (error, text) in squares.items():
        x, y = sizes.index(size), lrs.index(lr)
        color = "#F1F1F1" if error is None else colormaps["cividis_r"](float(norm(max(error, FLOOR))))
        hatch = "////" if text == "D" else None
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white", linewidth=1, hatch=hatch))
        dark = error is not None and float(np.dot(color[:3], (0.3, 0.59, 0.11))) < 0.5
        box = {"facecolor": "#F1F1F1", "edgecolor": "none", "pad": 1} if hatch else None
        ax.text(
            x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7, color="#FFFFFF" if dark else DARK, bbox=box
        )
    for size, best in lowest(squares).items():
        ax.add_patch(
            Rectangle((sizes.index(size) + 0.04, lrs.index(best) + 0.04), 0.92, 0.92, fill=False, edgecolor=DARK)
        )
    ax.set_xlim(0, len(sizes))
    ax.set_ylim(0, len(lrs))
    ax.set_xticks(np.arange(len(sizes)) + 0.5, [show(size) for size in sizes])
    ax.set_yticks(np.arange(len(lrs)) + 0.5, [show(lr) for lr in lrs])
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
