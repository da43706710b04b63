"""Percentile ribbons per layer over training: the figure of Ioffe & Szegedy 2015 (arXiv 1502.03167, fig. 1b-c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from normbench.analysis.groups import order
from normbench.errors import UserError
from normbench.plots.drawing import omitted, panels, segments
from normbench.plots.facets import entering, evenly, hidden, layers_of, step_axis
from normbench.plots.view import OVER, Drawn, Shown, View, one_seed

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = ["p01", "p15", "p50", "p85", "p99"]
LAYERS = 4
UNITS = 20  # of a layer, whose medians are drawn


def draw(view: View, tensor: str = "", layer: str = "") -> Drawn | None:
    """A row per scheme, a column per layer, one seed; few layers and many schemes the other way round.

    On the page it stands where no script can draw the layer explorer.

    Args:
        tensor: of a block; "" is what enters its activation.
        layer: this one alone. Of either, UserError says which there are.
    """
    shown = _one_seed(view, tensor, layer)
    if not shown:
        return None
    table = shown.table[shown.table["unit"].isna()]
    table = table[np.isfinite(table[PERCENTILES]).any(axis=1)]
    units = shown.table[shown.table["unit"].notna() & shown.table["p50"].notna()]
    if table.empty:
        return None
    schemes, every = order(table["scheme"]), layers_of(table)
    layers = evenly(every, LAYERS)
    across = len(layers) <= 2 < len(schemes)  # lay the schemes out from left to right
    rows, columns = (layers, schemes) if across else (schemes, layers)
    width = min(5.0, 11 / len(columns))
    canvas, axes = panels(len(rows), len(columns), width, 1.6 if len(rows) > 1 else 2.6, sharex=True,
                          sharey="row" if across else "col")  # fmt: skip
    cut, last = False, float(table["step"].max())
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            scheme, layer = (column, row) if across else (row, column)
            of_layer = table[table["layer"] == layer]
            limit = reach_limit([_reach(part) for _, part in of_layer.groupby("scheme")])
            part = of_layer[of_layer["scheme"] == scheme].sort_values("step", kind="stable")
            medians = units[(units["scheme"] == scheme) & (units["layer"] == layer)]
            cut |= _panel(axes[i][j], part, medians, view.styles[scheme].color, limit)
            axes[i][j].set_ylabel(row.replace(" ", "\n") if j == 0 else "", fontweight=None if across else "bold")
            axes[i][j].set_title(column if i == 0 else "", fontweight="bold" if across else None)
    step_axis(axes[0][0], last)
    canvas.supxlabel("training step", fontsize=9)
    canvas.supylabel(tensor or "what enters the activation", fontsize=9)
    plain = ", ".join(s for s in schemes if set(table[table["scheme"] == s]["tensor"]) == {"linear"})
    none = f" (where there is none, linear: {plain})" if plain else ""
    diverged = [s for s in schemes if shown.runs[shown.runs["scheme"] == s]["status"].eq("diverged").any()]
    parts = [
        _what_one_sees(table[table["layer"] == hidden(layers)], schemes),
        f"One run per scheme ({_seeds(shown.runs)}). Percentiles 1, 15, 50, 85 and 99 over all units and images of a",
        "fixed set of validation images: line = median, dark band = 15 to 85, light band = 1 to 99. Tensor:",
        f"{tensor or f'normalized, the output of the norm{none}'}. All units",
        "are in one band: it may stay where it is while single units move.",
        "Thin lines: medians of single units." * bool(len(units)),
        "The step axis is logarithmic from step 1 on. All schemes share the vertical axis of a layer.",
        "A scheme that reaches over five times as far as the median one is cut there, its range written." * cut,
        "Networks with batch norm are measured with the statistics of these images, not the running ones.",
        f"Diverged: {', '.join(diverged)}." * bool(diverged),
        shown.words,
        omitted(LAYERS, len(every), "layers"),
    ]
    return Drawn(canvas, view.line(shown.runs), " ".join(filter(None, parts)))


def _one_seed(view: View, tensor: str, layer: str) -> Shown | None:
    """A run of each scheme. A diverged run counts too: here each is drawn by itself, not averaged."""
    shown = view.measured("activations", "step", "unit", *PERCENTILES, words=("bn_mode",), statuses=OVER)
    if not shown:
        return None
    runs = one_seed(shown.runs)
    table = shown.table[shown.table["run"].isin(runs.index) & (shown.table["bn_mode"] == "probe")]
    for key, value in {"tensor": tensor, "layer": layer}.items():
        if value and value not in (known := list(dict.fromkeys(table[key].dropna()))):
            raise UserError(f"{key} is one of {', '.join(map(str, known))}: got {value!r}.")
    table = table[table["tensor"] == tensor] if tensor else entering(table)
    return Shown(runs, table[table["layer"] == layer] if layer else table, shown.words)


def _seeds(runs: pd.DataFrame) -> str:
    """Such as "seed 0", or "none seed 1, batch seed 2"."""
    if runs["seed"].nunique() == 1:
        return f"seed {runs['seed'].iloc[0]}"
    return ", ".join(f"{scheme} seed {seed}" for scheme, seed in zip(runs["scheme"], runs["seed"], strict=True))


def _what_one_sees(table: pd.DataFrame, schemes: Sequence[str]) -> str:
    """How wide the middle of the last layer is at the start and at the end."""
    words = []
    for scheme in schemes:
        own = table[table["scheme"] == scheme].sort_values("step", kind="stable")
        if len(own):
            first, last = (float(own["p85"].iloc[i] - own["p15"].iloc[i]) for i in (0, -1))
            words.append(f"{scheme} {first:.2g} to {last:.2g}")
    return f"From start to end the middle 70% of {table['layer'].iloc[0]} change in width: {', '.join(words)}."


def _reach(part: pd.DataFrame) -> float:
    values = part[PERCENTILES].to_numpy(dtype=float)
    return float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0


def reach_limit(reaches: Sequence[float]) -> float:
    """Half the height of a shared axis: the furthest reach, but five times the median at most: none flattens all."""
    if not any(reaches):
        return 1.0
    return 1.05 * min(max(reaches), 5 * float(np.median(reaches)) or max(reaches))


def _panel(ax: Axes, part: pd.DataFrame, units: pd.DataFrame, color: str, limit: float) -> bool:
    """Says whether the ribbon leaves the panel. Without rows nothing is left of the panel."""
    if part.empty:
        ax.set_visible(False)
        return False
    ax.grid(visible=False, axis="x")
    p01, p15, p50, p85, p99 = part[PERCENTILES].to_numpy(dtype=float).T
    ax.fill_between(part["step"], p01, p99, color=color, alpha=0.18, linewidth=0)
    ax.fill_between(part["step"], p15, p85, color=color, alpha=0.35, linewidth=0)
    medians = [(one["step"], one["p50"]) for _, one in units.groupby("unit")][:UNITS]
    segments(ax, medians, "#000000", width=0.6, alpha=0.6)
    ax.plot(part["step"], p50, color=color, linewidth=1.2)
    ax.set_ylim(-limit, limit)
    ax.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    values = part[PERCENTILES].to_numpy(dtype=float)
    if _reach(part) <= limit:
        return False
    box = {"facecolor": "#808080", "alpha": 0.3, "edgecolor": "none", "pad": 1}
    text = f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
    ax.text(0.03, 0.95, text, transform=ax.transAxes, ha="left", va="top", fontsize=7.5, bbox=box)
    return True
