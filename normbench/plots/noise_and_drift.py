"""How far another mini-batch moves a unit's mean, and how far a training step does."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cells, label, order
from normbench.analysis.measured import SCHEMES, by_batch_size, rows
from normbench.plots.by_layer import in_order, layer_axis, mean_over_seeds
from normbench.plots.drawing import Figure, finish, omitted, panels, plain_ticks, threads
from normbench.plots.palette import palette

NAME, TITLE = "noise_and_drift", "Noise and drift: another batch beside a training step"
SIZES, COLUMNS = 3, ("noise_mean", "step_drift")


def draw(cells: Cells) -> list[Figure]:
    """A row per batch size, a column per scheme."""
    rest, sizes = by_batch_size(cells, "batch_noise", "lower", *COLUMNS)
    if not sizes:
        return [
            Figure(NAME, TITLE, "Not drawn: no complete run has measured it. The instrument batch_noise supplies it.")
        ]
    every = order({scheme for runs in sizes.values() for scheme in runs})
    schemes, styles = every[: SCHEMES - 2], palette(cells.schemes)
    shown = [list(sizes)[i] for i in np.unique(np.linspace(0, len(sizes) - 1, min(SIZES, len(sizes))).astype(int))]
    canvas, axes = panels(len(shown), len(schemes), max(2.0, 11.5 / len(schemes)), 2.3, sharex=True, sharey=True)
    tables = {
        (size, scheme): [last for e in sizes[size].get(scheme, []) if len(last := last_rows(e))]
        for size in shown
        for scheme in schemes
    }
    layers = in_order(table.index.get_level_values("layer") for runs in tables.values() for table in runs)
    for (size, scheme), runs in tables.items():
        ax = axes[shown.index(size)][schemes.index(scheme)]
        _draw_panel(ax, runs, layers, styles[scheme].color)
        if size == shown[0]:
            ax.set_title(scheme, fontweight="bold")
        layer_axis(ax, layers)
    for row, size in zip(axes, shown, strict=True):
        row[0].set_ylabel(f"batch size {size}")
    axes[0][0].set_yscale("log")
    plain_ticks(axes[0][0].yaxis)
    marks = {
        "o": "another batch, exact statistics below",
        "D": "another batch, as in training",
        "_": "one training step",
    }
    canvas.legend(
        handles=[
            Line2D([], [], color="#555555", marker=m, linestyle="", label=w, markersize=9 if m == "_" else 5,
                   markerfacecolor="white" if m == "D" else None, markeredgewidth=2 if m == "_" else 1)
            for m, w in marks.items()
        ],
        loc="outside upper center",
        ncols=3,
    )  # fmt: skip
    counts = sum(len(runs) for runs in tables.values())
    title = TITLE if not rest else f"{TITLE}: {label(rest)}"
    parts = [
        f"At the last step, by layer, from {counts} runs (means over seeds; small dots: seeds). Tensor: linear, the",
        "input of the norm. In standard deviations of a unit, mean over units: how far its mean lies from one",
        "mini-batch of the training set to another at the same weights (circle: the norms below work with exact",
        "statistics; diamond: with each batch's own, where the scheme uses the batch), and how far the last training",
        "step moved its mean over the probe (bar). Where the circle is far above the bar, what a layer sees from",
        "step to step is noise of the batch, not drift of the weights. Below: by how many times, median over layers.",
        omitted(len(shown), sizes, "batch sizes"),
        omitted(len(schemes), every, "schemes"),
    ]
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, cells.synthetic)]


def last_rows(entry: Entry) -> pd.DataFrame:
    """(lower, layer) -> noise_mean and step_drift at the last snapshot, of the input of each norm."""
    table = rows(entry, "batch_noise", "step", *COLUMNS)
    if "lower" not in table.columns:
        return pd.DataFrame()
    table = table[(table.tensor == "linear") & (table.step == table.step.max())]
    return table.drop_duplicates(["lower", "layer"]).set_index(["lower", "layer"])[list(COLUMNS)]


def ratio(runs: list[pd.DataFrame]) -> float:
    """Noise over drift: the median over layers of the quotient of the means over seeds."""
    noise, drift = (mean_over_seeds([run.xs("population")[name] for run in runs]) for name in COLUMNS)
    found = (noise / drift)[drift > 0].dropna()
    return float(found.median()) if len(found) else float("nan")


def _draw_panel(ax: Axes, runs: list[pd.DataFrame], layers: list[str], color: str) -> None:
    if not runs:
        return
    x = np.arange(len(layers))

    def values(lower: str, name: str) -> np.ndarray:
        """[seeds, layers]"""
        return np.stack([run.xs(lower)[name].reindex(layers).to_numpy(dtype=float) for run in runs])

    noise, own, drift = (
        values("population", "noise_mean"),
        values("training", "noise_mean"),
        values("population", "step_drift"),
    )
    for numbers in (noise, drift) if len(runs) > 1 else ():
        ax.plot(
            np.tile(x, (len(runs), 1)),
            np.where(numbers > 0, numbers, np.nan),
            ".",
            color=color,
            markersize=3,
            alpha=0.5,
        )
    threads(ax, [((at, at), pair) for at, pair in zip(x, zip(drift.mean(0), noise.mean(0), strict=True), strict=True)],
            color, width=0.8, alpha=1)  # fmt: skip
    ax.plot(x, noise.mean(0), "o", color=color)
    if not np.allclose(own, noise, rtol=1e-3, equal_nan=True):
        ax.plot(x, np.where(own.mean(0) > 1e-5, own.mean(0), np.nan), "D", color=color, markerfacecolor="white")
    ax.plot(x, np.where(drift.mean(0) > 0, drift.mean(0), np.nan), "_", color=color, markersize=11, markeredgewidth=2)
    if np.isfinite(times := ratio(runs)):
        ax.text(
            0.98,
            0.03,
            f"×{times:.0f}" if times >= 9.5 else f"×{times:.1f}",
            transform=ax.transAxes,
            ha="right",
            va="bottom",
            fontsize=8,
        )
