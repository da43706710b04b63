"""What reaches each layer: gradients, relative updates, units that are dead or saturated, by depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from normbench.analysis.groups import Groups, label
from normbench.analysis.measured import choose, rows
from normbench.plots.by_layer import draw_by_layer, in_order, layer_axis
from normbench.plots.drawing import Figure, finish, legend, panels, plain_ticks
from normbench.plots.palette import palette
from normbench.runs import Run

NAME, TITLE = "depth", "Gradients and silent units by depth"
MOMENTS = {"first": "before the first update", "last": "at the end"}
WORDS = {
    "saturated": "Saturated: share of activations near the bounds of a sigmoid or tanh.",
    "zero": "Zero: share of activations that are 0.",
}
Column = tuple[str, Callable[[Run, str], "pd.Series"], bool]  # title, (run, moment) -> by layer, logarithmic?


def draw(groups: Groups) -> list[Figure]:
    """A column per quantity, a row per moment."""
    chosen = choose(groups, "gradients", "gradient", "update_ratio") or choose(groups, "units", "dead")
    if chosen is None:
        return [Figure(NAME, TITLE, "Not drawn: the instruments gradients and units supply it (instruments=standard).")]
    columns: list[Column] = [("|gradient| of the weights", gradient, True), ("|update| / |weights|", update, True)]
    kinds = _shares(chosen.runs)
    columns += [(f"{what} units" if what == "dead" else f"{what} values", share(what), False) for what in kinds]
    found = {
        (i, j, scheme): [series for run in members if len(series := take(run, moment))]
        for i, moment in enumerate(MOMENTS)
        for j, (_, take, _) in enumerate(columns)
        for scheme, members in chosen.runs.items()
    }
    layers = in_order(series.index for several in found.values() for series in several)
    styles = palette(groups.schemes)
    canvas, axes = panels(len(MOMENTS), len(columns), 11.5 / len(columns), 2.3, sharex=True, sharey="col")
    for (i, j, scheme), runs in found.items():
        draw_by_layer(axes[i][j], layers, runs, styles[scheme])
    for j, (title, _, log) in enumerate(columns):
        axes[0][j].set_title(title)
        if log and any(len(found[i, j, scheme]) for i in (0, 1) for scheme in chosen.runs):
            axes[0][j].set_yscale("log")
            plain_ticks(axes[0][j].yaxis)
        elif not log:
            top = max(0.1, axes[0][j].get_ylim()[1])
            axes[0][j].set_ylim(-0.03 * top, top)
        layer_axis(axes[1][j], layers)
    for row, words in zip(axes, MOMENTS.values(), strict=True):
        row[0].set_ylabel(words)
    legend(canvas, {scheme: styles[scheme] for scheme in chosen.runs})
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    parts = [
        "By layer, from the input at the left to the output. Dots: seeds; lines: means. Gradient: Frobenius norm of",
        "the loss's gradient for all weights of a layer, of a fixed batch of validation images in training mode; a",
        "straight level line means that no layer is starved, a slope that the signal fades or grows on its way back.",
        "Update: what the next update changes, over the weights' norm (at the end: the last snapshot before it).",
        f"Dead: share of units whose activation is the same for all images of the probe. {WORDS[kinds[1]]} Both of",
        "the tensor activation, in bn_mode probe.",
        chosen.words,
    ]
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def gradient(run: Run, moment: str) -> pd.Series:
    """Layer -> norm of the gradient of all its weights: of a recurrent cell's two matrices the root of the squares."""
    table = _weights(run, "gradient")
    return _at(table, moment).groupby("layer", sort=False).gradient.apply(lambda g: float(np.sqrt((g**2).sum())))


def update(run: Run, moment: str) -> pd.Series:
    """Layer -> |update| / |weights|, over a recurrent cell's matrices the mean."""
    return _at(_weights(run, "update_ratio"), moment).groupby("layer", sort=False).update_ratio.mean()


def share(what: str) -> Callable[[Run, str], pd.Series]:
    column = {"zero": "zeros"}.get(what, what)

    def take(run: Run, moment: str) -> pd.Series:
        table = rows(run, "units", "step", column)
        return _at(table[table[column].notna()], moment).groupby("layer", sort=False)[column].mean()

    return take


def _shares(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """`dead`, and `saturated` where the non-linearity can saturate, `zero` where it can't."""
    members = [run for several in runs.values() for run in several]
    return ["dead", "saturated" if any(len(share("saturated")(run, "last")) for run in members) else "zero"]


def _weights(run: Run, column: str) -> pd.DataFrame:
    """The rows of weights, not of `linear`, that have a number."""
    table = rows(run, "gradients", "step", column)
    return table[table[column].notna() & ~table.tensor.astype(str).str.endswith("linear")]


def _at(table: pd.DataFrame, moment: str) -> pd.DataFrame:
    return table[table.step == (table.step.min() if moment == "first" else table.step.max())]
