"""The shape of each layer's distribution over training, as ridges: as the next layer sees it while learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cells, label
from normbench.analysis.measured import by_batch_size, rows
from normbench.plots.by_layer import entering, evenly, in_order
from normbench.plots.drawing import Figure, finish, omitted, panels
from normbench.plots.palette import palette

NAME, TITLE = "ridges", "Shape of each layer's distribution over training"
SCHEMES, LAYERS, SNAPSHOTS, POINTS = 6, 4, 7, 70
COUNTS = [f"h{k:02}" for k in range(64)]


@dataclass(frozen=True)
class Shapes:
    """Histograms of one layer: `counts` [snapshots, 64] in equal bins from `low` to `high`."""

    steps: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    way: str
    tensor: str

    def density(self, snapshot: int, edges: np.ndarray) -> np.ndarray:
        """Share of the values per unit of the axis between each two of `edges`: each bin's values evenly spread."""
        counts, width = self.counts[snapshot], self.high[snapshot] - self.low[snapshot]
        if not width > 0:  # all values are equal
            return np.histogram(self.low[snapshot], edges)[0] / np.diff(edges)
        below = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        own = np.linspace(self.low[snapshot], self.high[snapshot], len(below))
        return np.diff(np.interp(edges, own, below)) / np.diff(edges)


def draw(cells: Cells) -> list[Figure]:
    """A row per scheme, a column per layer; one run of each scheme, of the first seed."""
    rest, sizes = by_batch_size(cells, "distributions", "way", "unit", *COUNTS)
    size = max(sizes, key=lambda size: (len(sizes[size]), -size), default=0)  # the smallest, where batches differ most
    runs = {scheme: entries[0] for scheme, entries in sizes.get(size, {}).items()}
    found = {scheme: own for scheme, entry in runs.items() if (own := shapes_of(entry))}
    if not found:
        return [
            Figure(
                NAME, TITLE, "Not drawn: no complete run has histograms. The instrument distributions supplies them."
            )
        ]
    schemes, every = list(found)[:SCHEMES], in_order(found.values())
    layers, styles = evenly(every, LAYERS), palette(cells.schemes)
    canvas, axes = panels(len(schemes), len(layers), 11 / len(layers), 1.7, sharex="col", sharey=True)
    bounded = []
    for j, layer in enumerate(layers):
        reach = _reach([found[scheme][layer] for scheme in schemes if layer in found[scheme]])
        for i, scheme in enumerate(schemes):
            ax = axes[i][j]
            if layer in found[scheme]:
                shapes = found[scheme][layer]
                _draw_ridges(ax, shapes, np.linspace(-reach, reach, POINTS + 1), styles[scheme].color)
                bound = _bound(runs[scheme], shapes)
                if 0 < bound < reach:
                    bounded.append(scheme)
                    for x in (-bound, bound):
                        ax.axvline(
                            x,
                            color="#D55E00" if styles[scheme].color != "#D55E00" else "k",
                            linestyle="--",
                            linewidth=0.9,
                        )
            ax.set_yticks([])
            ax.set_xlim(-reach, reach)
        axes[0][j].set_title(layer)
    for i, scheme in enumerate(schemes):
        axes[i][0].set_ylabel(scheme, fontweight="bold")
        axes[i][0].annotate("end", (0.01, 0.97), xycoords="axes fraction", fontsize=6.5, va="top")
        axes[i][0].annotate("step 0", (0.01, 0.02), xycoords="axes fraction", fontsize=6.5, va="bottom")
    ways = sorted({f"{scheme} {found[scheme][x].way}" for scheme in schemes for x in found[scheme]})
    title = f"{TITLE}: {', '.join(filter(None, (label(rest, ''), f'batch size {size}')))}"
    parts = [
        f"One run per scheme, of its first seed, at up to {SNAPSHOTS} snapshots, from step 0 below to the end above;",
        "heights are densities, to one scale within a panel. Values of all units of what enters each layer's",
        f"activation (normalized, or linear without a norm). Ways: {', '.join(ways)} (batch: in mini-batches of the",
        "run's own size, as in training; probe: with the statistics of all images, or none). The axis of a layer is",
        "the same for all schemes; what lies beyond is cut.",
        "Dashed: ± square root of (batch size − 1), which no value that batch norm standardised can pass in training,"
        " before gamma and beta." if bounded else "",
        omitted(LAYERS, every, "layers"),
        omitted(SCHEMES, found, "schemes"),
    ]  # fmt: skip
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, cells.synthetic)]


def shapes_of(entry: Entry) -> dict[str, Shapes]:
    """Layer -> its histograms, in the way "batch" where there is one, else in the way "probe"."""
    table = rows(entry, "distributions", "step", "low", "high", *COUNTS)
    if not {"way", "unit"} <= set(table.columns):
        return {}
    way = "batch" if (table.way == "batch").any() else "probe"
    table = table[(table.way == way) & table.unit.isna() & (table[COUNTS].sum(axis=1) > 0)]
    found = {}
    for layer, group in entering(table).groupby("layer", sort=False):
        group = group.sort_values("step", kind="stable").drop_duplicates("step")
        group = group.iloc[np.unique(np.linspace(0, len(group) - 1, min(SNAPSHOTS, len(group))).astype(int))]
        steps, low, high = (group[name].to_numpy(dtype=float) for name in ("step", "low", "high"))
        counts, tensor = group[COUNTS].to_numpy(dtype=float), str(group.tensor.iloc[0])
        found[str(layer)] = Shapes(steps, low, high, counts, way, tensor)
    return found


def _reach(shapes: list[Shapes]) -> float:
    """Half the width of a layer's axis: the furthest that 99% of a scheme's values reach at any snapshot, but twice
    the median scheme at most.
    """
    far = [max(_within(s, i) for i in range(len(s.steps))) for s in shapes]
    return 1.1 * min(max(far, default=1.0), 2 * float(np.median(far or [1.0]))) or 1.0


def _within(shapes: Shapes, snapshot: int) -> float:
    """The distance from 0 within which 99% of the values are."""
    counts = shapes.counts[snapshot]
    edges = np.linspace(shapes.low[snapshot], shapes.high[snapshot], len(counts) + 1)
    far = np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))
    nearest = np.argsort(far)
    return float(far[nearest][np.searchsorted(np.cumsum(counts[nearest]), 0.99 * counts.sum())])


def _bound(entry: Entry, shapes: Shapes) -> float:
    """Of batch norm over mini-batches: (x - m) / s is at most sqrt(N - 1) in N values; 0 where that is not so.

    In convolutions and recurrent cells a channel has more values per batch than images.
    """
    plain = entry.settings.get("norm") == "batch" and str(entry.settings.get("model")).startswith("mlp")
    size = entry.settings.get("batch_size") or 0
    return (
        float(np.sqrt(size - 1)) if plain and shapes.way == "batch" and shapes.tensor == "normalized" and size else 0.0
    )


def _draw_ridges(ax: Axes, shapes: Shapes, edges: np.ndarray, color: str) -> None:
    middle = (edges[1:] + edges[:-1]) / 2
    heights = [shapes.density(i, edges) for i in range(len(shapes.steps))]
    top = max((float(np.quantile(h, 0.97)) for h in heights), default=0) or 1.0  # a peak of zeros must not flatten all
    for i in reversed(range(len(heights))):
        ridge = i + np.minimum(1.6 * heights[i] / top, 2.2)
        outline = [middle[0], *middle, middle[-1]], [i, *ridge, i]
        ax.fill(*outline, facecolor=to_rgba(color, 0.35), edgecolor=color, linewidth=0.7, zorder=3 - i / 100)
    ax.set_ylim(0, SNAPSHOTS + 1.4)
