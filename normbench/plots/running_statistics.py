"""How good the statistics are that inference works with, and what their error costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from normbench.analysis.groups import Groups, label
from normbench.analysis.inference_statistics import KINDS
from normbench.analysis.measured import by_batch_size, rows
from normbench.plots.by_layer import draw_by_layer, in_order, layer_axis
from normbench.plots.drawing import Figure, finish, legend, omitted, panels, plain_ticks
from normbench.plots.palette import palette
from normbench.runs import Run

NAME, TITLE = "running_statistics", "Running statistics: their error, and the gap between training and inference"
SIZES = 3
ERRORS = {"mean_error": "error of the running mean", "var_error": "error of the running variance"}


def draw(groups: Groups) -> list[Figure]:
    """A row per batch size."""
    rest, sizes = by_batch_size(groups, "statistics", "statistics", "norm", "accuracy", *ERRORS)
    if not sizes:
        missing = "Not drawn: no complete run of a scheme with running statistics has measured them. The instrument"
        return [Figure(NAME, TITLE, f"{missing} statistics supplies it.")]
    shown = [list(sizes)[i] for i in np.unique(np.linspace(0, len(sizes) - 1, min(SIZES, len(sizes))).astype(int))]
    styles = palette(groups.schemes)
    canvas, axes = panels(len(shown), len(ERRORS) + 1, 3.8, 2.4, sharex="col", sharey="col")
    layers = in_order(norm_errors(e, "mean_error").index for size in shown for es in sizes[size].values() for e in es)
    for row, size in zip(axes, shown, strict=True):
        for scheme, members in sizes[size].items():
            for ax, column in zip(row, ERRORS, strict=False):
                draw_by_layer(ax, layers, [norm_errors(run, column) for run in members], styles[scheme])
            draw_by_layer(row[-1], KINDS, [by_kind(run) for run in members], styles[scheme])
        row[0].set_ylabel(f"batch size {size}")
    for ax, title in zip(axes[0], (*ERRORS.values(), "validation error (%)"), strict=True):
        ax.set_title(title)
    _scale(axes[0])
    for ax in axes[-1][:-1]:
        layer_axis(ax, layers)
    layer_axis(axes[-1][-1], KINDS)
    schemes = [s for s in groups.schemes if any(s in sizes[size] for size in shown)]
    legend(canvas, {scheme: styles[scheme] for scheme in schemes})
    counts = sum(len(members) for size in shown for members in sizes[size].values())
    parts = [
        f"After the last step, from {counts} complete runs. Dots: seeds; lines: means. Left and middle, by layer:",
        "root mean square over units of how far the running mean is from the exact one, in standard deviations, and",
        "of how far the running variance is from it, as a share (0.1: 10 percent), logarithmic. Exact: of training",
        "images at the present weights. Right: error on the validation set with the running statistics (ema: what",
        "inference usually works with), averages over mini-batches at the present",
        "weights (averages), the exact ones (precise), and those of each mini-batch of the run's own size, as in",
        "training: what falls from batch to ema is the gap between training and inference; where precise is much",
        "lower than ema, the averages are to blame, not the batch. Schemes without running statistics have none.",
        omitted(len(shown), sizes, "batch sizes"),
    ]
    title = TITLE if not rest else f"{TITLE}: {label(rest)}"
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def norm_errors(run: Run, column: str) -> pd.Series:
    """Norm -> error of its running statistics at the last snapshot (of a recurrent one: the median over time steps)."""
    table = _last(run, column)
    table = table[(table.statistics == "ema") & table.layer.notna() & table.time.isna() & (table[column] > 0)]
    # A layer with several norms, such as a recurrent cell, has a place for each.
    names = [
        layer if norm == "norm" else f"{layer}.{norm}" for layer, norm in zip(table.layer, table.norm, strict=True)
    ]
    return pd.Series(table[column].to_numpy(dtype=float), index=names, dtype=float)


def by_kind(run: Run) -> pd.Series:
    """Kind of statistics -> validation error in percent, at the last snapshot."""
    table = _last(run, "accuracy")
    table = table[table.layer.isna() & table.accuracy.notna()]
    return 100 * (1 - table.set_index("statistics").accuracy)


def _last(run: Run, column: str) -> pd.DataFrame:
    table = rows(run, "statistics", "step", "time", column)
    if not {"statistics", "norm"} <= set(table.columns):
        return table.assign(statistics=None, norm=None)[:0]
    return table[table.step == table.step.max()]


def _scale(row: list[Axes]) -> None:
    for ax in row:
        if len(ax.lines):
            ax.set_yscale("log")
            plain_ticks(ax.yaxis)
