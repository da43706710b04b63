"""The loss along the gradient while training: Santurkar et al. 2018 (arXiv 1805.11604, fig. 4)."""

from __future__ import annotations

import pandas as pd

from normbench.analysis.groups import Groups, label
from normbench.analysis.measured import choose, rows
from normbench.plots.by_layer import draw_runs
from normbench.plots.drawing import Figure, finish, panels, plain_ticks
from normbench.plots.palette import palette
from normbench.plots.ribbons import step_axis
from normbench.runs import Run

NAME, TITLE = "landscape", "The loss along the gradient"
BANDS = {"loss": "loss", "change": "change of the gradient"}  # of columns ..._min and ..._max
NUMBERS = ("step", "loss_min", "loss_max", "change_min", "change_max", "lr_smoothness")


def draw(groups: Groups) -> list[Figure]:
    """A column per scheme; two rows of bands, and a row of smoothness."""
    chosen = choose(groups, "landscape", "kind", *NUMBERS)
    if chosen is None:
        return [Figure(NAME, TITLE, "Not drawn: the instrument landscape supplies it (instruments=full).")]
    styles = palette(groups.schemes)
    canvas, axes = panels(
        3, len(chosen.runs), max(1.9, 11.5 / max(3, len(chosen.runs))), 1.9, sharex=True, sharey="row"
    )
    last = 1
    for j, (scheme, members) in enumerate(chosen.runs.items()):
        color = styles[scheme].color
        for i, name in enumerate(BANDS):
            for table in map(_absolute, members):
                low, high = table[f"{name}_min"], table[f"{name}_max"]
                axes[i][j].fill_between(table.step, low, high, color=color, alpha=0.6 / len(members), linewidth=0)
                axes[i][j].plot(table.step, high, color=color, linewidth=0.7)
                last = max([last, *table.step.astype(int)])
        smooth = [table.set_index("step").lr_smoothness for table in (_kind(e, "relative") for e in members)]
        draw_runs(axes[2][j], smooth, styles[scheme])
        axes[0][j].set_title(scheme, fontweight="bold")
    for row, words in zip(axes, (*BANDS.values(), "lr × smoothness"), strict=True):
        row[0].set_ylabel(words)
        if any(ax.dataLim.y1 > 0 for ax in row):  # a torn table may leave nothing that a logarithm shows
            row[0].set_yscale("log")
            plain_ticks(row[0].yaxis)
    step_axis(axes[0][0], last)
    canvas.supxlabel("training step", fontsize=9)
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    parts = [
        "At each snapshot, the mini-batch of the next update, in training mode. Bands, one for each seed on top of",
        "one another: over steps of 0.05 to 0.4 times the gradient (as published), the least and greatest loss after",
        "such a step (top), and how far the gradient there is from the one here (middle: |difference|): narrow and",
        "low bands mean that the gradient tells the truth about a longer way. Bottom: the greatest |change of the",
        "gradient| / |step| over steps of 1/4 to 4 times the run's own learning rate, times that rate: without a",
        "unit, and comparable where a norm makes the scale of weights void; thin lines: seeds, thick: mean; above",
        "about 2 plain gradient descent on that loss would not be stable. Axes are logarithmic and the same within a",
        "row.",
        chosen.words,
    ]
    return [finish(NAME, title, " ".join(parts), canvas, groups.synthetic)]


def _absolute(run: Run) -> pd.DataFrame:
    return _kind(run, "absolute")


def _kind(run: Run, kind: str) -> pd.DataFrame:
    """Rows of one kind of steps; numbers that are not positive have no place on a logarithmic axis."""
    table = rows(run, "landscape", *NUMBERS)
    if "kind" not in table.columns:
        return table[list(NUMBERS)]
    found = table[table.kind == kind][list(NUMBERS)].astype(float)
    return found.where((found > 0) | (found.columns == "step"))
