"""Numbers by depth: which layers are shown, what enters an activation, a line per scheme with its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from normbench.plots.drawing import threads
from normbench.plots.palette import Style

if TYPE_CHECKING:
    import pandas as pd

LABELS = 8  # names of layers that fit below one panel


def evenly(items: Sequence[str], count: int) -> list[str]:
    """`count` of them, evenly spaced, first and last included."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def in_order(runs: Iterable[Iterable[str]]) -> list[str]:
    """All names of layers, in the order of the network that has the most."""
    lists = [list(dict.fromkeys(run)) for run in runs]
    return list(dict.fromkeys(name for names in sorted(lists, key=len, reverse=True) for name in names))


def entering(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of what enters each layer's activation: `normalized`, or `linear` where a layer has no norm."""
    normed = set(table.layer[table.tensor == "normalized"])
    return table[(table.tensor == "normalized") | ((table.tensor == "linear") & ~table.layer.isin(normed))]


def mean_over_seeds(runs: Sequence[pd.Series]) -> pd.Series:
    """At the places that all runs have: a mean over some of them would jump where one ends."""
    import pandas as pd

    return pd.concat([once(run) for run in runs], axis=1, join="inner").mean(axis=1, skipna=False)


def once(run: pd.Series) -> pd.Series:
    """Without places that come twice, as they do in a damaged table."""
    return run[~run.index.duplicated()]


def draw_runs(ax: Axes, runs: Sequence[pd.Series], style: Style) -> None:
    """Values over training: a thin line for each seed, and their mean."""
    if len(runs) > 1:
        threads(ax, [(run.index, run) for run in runs], style.color)
    if runs and len(mean := mean_over_seeds(runs)):
        ax.plot(mean.index, mean, markevery=max(1, len(mean) // 5), **style.drawn)


def draw_by_layer(ax: Axes, layers: Sequence[str], runs: Sequence[pd.Series], style: Style, dodge: float = 0.0) -> None:
    """Values by depth: a dot for each seed, a line through their means."""
    known = [once(run).reindex(layers).to_numpy(dtype=float) for run in runs]
    places = np.arange(len(layers)) + dodge
    if len(known) > 1:
        ax.plot(np.tile(places, len(known)), np.concatenate(known), ".", color=style.color, markersize=3.5, alpha=0.6)
    if known:
        table = np.stack(known)
        seen = np.isfinite(table).all(axis=0)
        ax.plot(places[seen], table[:, seen].mean(axis=0), **style.drawn)


def layer_axis(ax: Axes, layers: Sequence[str]) -> None:
    """Names below, slanted where they are long; of many layers only some."""
    every = max(1, -(-len(layers) // LABELS))
    slanted = sum(map(len, layers[::every])) > 26
    ax.set_xlim(-0.4, len(layers) - 0.6)
    ax.set_xticks(range(0, len(layers), every), layers[::every])
    if slanted:
        for name in ax.get_xticklabels():
            name.set(rotation=35, ha="right", rotation_mode="anchor")
