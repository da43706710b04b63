"""How much mini-batches differ at the same weights, against the batch size."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from normbench.analysis.groups import Groups, label, order
from normbench.analysis.measured import by_batch_size, rows
from normbench.plots.by_layer import evenly
from normbench.plots.drawing import Figure, finish, omitted, panels, plain_ticks
from normbench.runs import Run

NAME, TITLE = "batch_noise", "How much mini-batches differ"
SCHEMES, LAYERS = 5, 6
LOWER = {"population": "lower layers on exact statistics", "training": "lower layers on the batch's own"}


def draw(groups: Groups) -> list[Figure]:
    """A column per scheme, a row per way that the lower layers work."""
    by_scheme: dict[str, list[pd.DataFrame]] = defaultdict(list)
    rest, runs = by_batch_size(groups, "batch_noise", "lower", "noise_mean")
    for run in (run for members in runs.values() for several in members.values() for run in several):
        if (table := _noise(run)) is not None:
            by_scheme[groups.scheme_of(run)].append(table)
    found = {scheme: pd.concat(tables) for scheme, tables in by_scheme.items()}
    sizes = sorted({int(size) for table in found.values() for size in table.batch_size})
    if len(sizes) < 2:
        missing = "Not drawn: it takes runs at two batch sizes or more, measured by the instrument batch_noise."
        return [Figure(NAME, TITLE, missing)]
    schemes = order(found)[:SCHEMES]
    canvas, axes = panels(len(LOWER), len(schemes), max(2.4, 11 / len(schemes)), 2.3, sharex=True, sharey=True)
    every = list(dict.fromkeys(layer for scheme in schemes for layer in found[scheme].layer))
    layers = evenly(every, LAYERS)
    shades = {layer: str(0.75 * i / max(1, len(layers) - 1)) for i, layer in enumerate(layers)}
    marks = dict(zip(layers, "osD^vP", strict=False))
    for i, (lower, words) in enumerate(LOWER.items()):
        axes[i][0].set_ylabel(words, fontsize=8)
        for j, scheme in enumerate(schemes):
            ax, table = axes[i][j], found[scheme]
            ax.plot(sizes, 1 / np.sqrt(sizes), color="#D55E00", linestyle="--", linewidth=1)
            for layer in layers:
                seeds = table[(table.lower == lower) & (table.layer == layer)]
                ax.plot(seeds.batch_size, seeds.noise_mean, ".", color=shades[layer], markersize=2.5, alpha=0.6)
                means = seeds.groupby("batch_size").noise_mean.mean()
                ax.plot(means.index, means, color=shades[layer], marker=marks[layer], linewidth=1)
            if i == 0:
                ax.set_title(scheme, fontweight="bold")
    ax = axes[0][0]
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    canvas.supxlabel("batch size", fontsize=9)
    handles = [Line2D([], [], color=shades[x], marker=marks[x], linewidth=1, label=x) for x in layers]
    law = Line2D([], [], color="#D55E00", linestyle="--", label="1 / sqrt(batch)")
    canvas.legend(handles=[*handles, law], loc="outside upper center", ncols=min(7, len(handles) + 1))
    parts = [
        "How far a unit's mean lies from one mini-batch to another (standard deviation over batches drawn from the",
        "training set), in standard deviations of the unit, at frozen weights after the last step; mean over units;",
        "dots: seeds, lines: their means. Tensor: linear, the input of the norm. Above, the norms before a layer",
        "work with exact statistics: images are then independent, and a unit with one value per image follows 1 /",
        "sqrt(batch). Below, they work as in training: batch norm centres each batch, so that behind it the means of",
        "batches hardly differ, and only the first layer follows the law.",
        omitted(LAYERS, every, "layers"),
        omitted(SCHEMES, found, "schemes"),
    ]
    title = TITLE if not rest else f"{TITLE}: {label(rest)}"
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def _noise(run: Run) -> pd.DataFrame | None:
    """The last measurement of a run: of the input of each norm."""
    table = rows(run, "batch_noise", "step", "noise_mean")
    if "lower" not in table.columns:
        return None
    table = table[(table.tensor == "linear") & (table.step == table.step.max())]
    table = table.assign(batch_size=run.values["batch_size"])
    return table[table.noise_mean > 0] if len(table) else None
