"""Pinned but moving: how far a layer's distribution has moved, beside how far each image's value has."""

from __future__ import annotations

import numpy as np
import pandas as pd

from normbench.analysis.groups import Cells, label
from normbench.analysis.measured import choose
from normbench.plots.by_layer import evenly, in_order, mean_over_seeds
from normbench.plots.drawing import Figure, bend, finish, legend, omitted, panels
from normbench.plots.palette import palette
from normbench.plots.shift import ROWS, curves

NAME, TITLE = "pinned_but_moving", "Pinned but moving: distributions stay, images move"
LAYERS = 5
X, Y = "w1_scaled_mean", "moved_scaled_mean"


def draw(cells: Cells) -> list[Figure]:
    """A panel per layer: the way of each scheme through the plane (distribution, image by image)."""
    chosen = choose(cells, "shift", "way", "since", *ROWS)
    found = {s: [c for e in es if (c := curves(e))] for s, es in chosen.runs.items()} if chosen else {}
    found = {scheme: runs for scheme, runs in found.items() if runs}
    if not chosen or not found:
        return [Figure(NAME, TITLE, "Not drawn: no complete run has measured it. The instrument shift supplies it.")]
    every = in_order(run for runs in found.values() for run in runs)
    layers, styles = evenly(every, LAYERS), palette(cells.schemes)
    canvas, axes = panels(1, len(layers), max(2.3, 11.5 / len(layers)), 3.1, sharex=True, sharey=True)
    places: list[pd.DataFrame] = []
    for ax, layer in zip(axes[0], layers, strict=True):
        for scheme, runs in found.items():
            tables = [run[layer].set_index("step") for run in runs if layer in run]
            if not tables:
                continue
            style, ends = styles[scheme], [table[[X, Y]].iloc[-1] for table in tables]
            mean = pd.DataFrame({name: mean_over_seeds([table[name] for table in tables]) for name in (X, Y)})
            mean = pd.concat([pd.DataFrame({X: [0.0], Y: [0.0]}), mean])  # where step 0 is, which has no row
            ax.plot(mean[X], mean[Y], color=style.color, linestyle=style.line, linewidth=1)
            ax.plot([end[X] for end in ends], [end[Y] for end in ends], ".", color=style.color, markersize=4, alpha=0.6)
            ax.plot(mean[X].iloc[-1:], mean[Y].iloc[-1:], marker=style.marker, color=style.color, markersize=6)
            places += [mean, pd.DataFrame(ends)]
        ax.set_title(layer)
    reached = pd.concat(places)
    far = np.linspace(0, 1.1 * float(reached.max(axis=None)), 200)
    for ax in axes[0]:
        ax.plot(far, far, color="#999999", linewidth=0.8, zorder=0, scalex=False, scaley=False)
    bent = bend(axes[0][0], "x", reached[Y]) and bend(axes[0][0], "y", reached[Y])  # alike
    axes[0][0].set_xlim(left=0)
    axes[0][0].set_ylim(0, 1.08 * float(reached[Y].max()) or 1)
    axes[0][0].set_ylabel("image by image: moved")
    canvas.supxlabel("distribution: W1", fontsize=9)
    legend(canvas, {scheme: styles[scheme] for scheme in found})
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    parts = [
        "How far the values of a layer have moved since step 0: to the right as distributions (Wasserstein-1), upwards",
        "image by image (mean distance of an image's value now and then), both in standard deviations of a unit, means",
        "over units, of what enters each layer's activation (normalized, or linear without a norm; way probe). Lines:",
        "the way from step 0 to the end, mean over seeds; marks: the end; dots: its seeds. Images move at least as far",
        "as their distribution: on the grey line all move alike. High up at the left: the distribution is pinned while",
        "the images behind it keep moving.",
        bent,
        chosen.words,
        omitted(LAYERS, every, "layers"),
    ]
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, cells.synthetic)]
