"""What comes out of training: error against an option that was varied, and while training."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from normbench.analysis.groups import order, show
from normbench.analysis.measured import rows
from normbench.plots.drawing import SOFT, Canvas, means, omitted, plain_ticks, plural
from normbench.plots.facets import FAILURES, facets, lines, places, points
from normbench.plots.view import OVER, Drawn, View

if TYPE_CHECKING:
    import pandas as pd

WITHIN = 1.0  # points behind the best that count as close
FLOOR = 0.01  # percent: where an error of 0 stands on a logarithmic axis
# Options that have figures of their own, or say how much is trained, or of what.
APART = ("model", "dataset", "lr", "batch_size", "max_steps", "max_samples", "epochs")
AXES = {"samples": "training images seen", "train_seconds": "seconds of training"}


def along(view: View, option: str) -> Drawn | None:
    """Test error against an option, each scheme at its own best lr for each value.

    For `batch_size` it is figure 1 of Wu & He 2018 (arXiv 1803.08494). For others the effective lr at the start stands
    below, where it was measured.
    """
    import pandas as pd

    runs, settings = _varied(view, view.best, option)
    if runs.empty:
        return None
    data = _errors(runs, option, "test")
    rates = [_effective_lr(view, name) if done else np.nan for name, done in (runs["status"] == "complete").items()]
    if option != "batch_size" and np.isfinite(rates).any():
        data = pd.concat([data, data.assign(row="effective lr at the start", y=rates, status="complete")])
    words = option if "." in option else option.replace("_", " ")
    canvas, caption = _draw(view, runs, option, words, data)
    if "lr" in view.groups.varying:
        caption += " Each scheme is at the lr with its highest mean validation accuracy, for each value."
    if data["row"].nunique() > 1:
        caption += " Below: lr / |w|^2 for SGD, median over the layers whose weights a norm makes free of scale."
    return Drawn(canvas, view.line(runs, option), f"{caption} {omitted(_count(runs), settings, 'settings')}".strip())


def along_others(view: View, place: int) -> Drawn | None:
    """`along` the first (place 0), second ... of the options that have no figure of their own."""
    options = [key for key in view.groups.varying if key not in APART and not key.endswith(".name")]
    able = [option for option in options if len(_varied(view, view.best, option)[0])]
    return along(view, able[place]) if len(able) > place else None


def lr_sensitivity(view: View) -> Drawn | None:
    """Filled marks are close to the best of their panel: the more of them, the less the lr has to be tuned."""
    runs, settings = _varied(view, view.every, "lr")
    if runs.empty:
        return None
    data = _errors(runs, "lr", "validation")
    data["hollow"] = ~close_to_best(data)
    behind = Line2D([], [], color=SOFT, marker="o", markerfacecolor="white", linestyle="",
                    label=f"more than {WITHIN:g} point behind the best")  # fmt: skip
    canvas, caption = _draw(view, runs, "lr", "learning rate", data, behind)
    tried = data.groupby(["scheme", "column", "x"])["hollow"].all()
    near = ", ".join(f"{s} {(~tried[s]).sum()} of {len(tried[s])}" for s in order(data["scheme"]) if not tried[s].all())
    caption = f"Close to the best of the panel are, of the learning rates tried: {near or 'none'}. {caption}" + (
        f" Filled: the mean is within {WITHIN:g} point of the best mean of all schemes and learning rates of the "
        f"panel, all runs having finished. {omitted(_count(runs), settings, 'settings')}"
    )
    return Drawn(canvas, view.line(runs, "lr"), caption.strip())


def close_to_best(data: pd.DataFrame) -> pd.Series:
    """For each run: is the mean error of its scheme and x within `WITHIN` points of the best of its panel?"""
    means = data.groupby(["column", "scheme", "x"])["y"].transform(lambda y: y.mean() if y.notna().all() else np.nan)
    return means <= means.groupby(data["column"]).transform("min") + WITHIN


def learning_curves(view: View) -> Drawn | None:
    """Validation error against the images seen and against the seconds it took."""
    import pandas as pd

    runs, settings = view.panels(view.best[view.best["status"].isin(OVER)])
    curves = [found.assign(run=name) for name in runs.index if len(found := curve(view, name)) > 1]
    if not curves:
        return None
    table = pd.concat(curves).join(runs[["scheme", "setting", "status"]], on="run")
    shown, one = runs.loc[table["run"].unique()], table["setting"].nunique() == 1
    floor = max(float(table["y"][table["y"] > 0].min()) / 2, FLOOR)
    table = table.assign(at=table["samples"], y=table["y"].clip(lower=floor))
    data = pd.concat(
        table.assign(x=table[x], row="" if one else words, column=words if one else table["setting"])
        for x, words in AXES.items()
    )
    diverged = int((shown["status"] == "diverged").sum())
    cross = [Line2D([], [], color=SOFT, marker="x", linestyle="", label="diverged")] * bool(diverged)
    log = list(dict.fromkeys(data["row"]))
    canvas, axes = facets(data, lines, view.styles, (2.9, 2.6), log=log, extra=cross, sharex=False)
    for (row, column), ax in axes.items():
        ax.set_xlim(left=0)
        ax.set_xlabel(column if one else row, fontsize=8)
        if (column if one else row) == AXES["samples"]:
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 10k
        ax.set_title("" if one or row != log[0] else column)
        ax.set_ylabel("")
    canvas.supylabel("validation error (%)", fontsize=9)
    setting = view.ranked(shown)[0]["setting"].iloc[0]
    last = table[(table["setting"] == setting) & (table["status"] == "complete")].groupby("run").tail(1)
    parts = [
        means(f"At the end{f', at {setting}' * (not one)}", last, "%"),
        f"From {plural(len(shown) - diverged, 'complete run')}. Error on {_curve_images(view, shown)}, on a",
        "logarithmic axis, against the training images seen and the seconds of training on this machine, without",
        "evaluating and measuring (means over seeds at the same evaluation). Thick: means over seeds, thin: seeds. The",
        "steeper the fall at the left, the faster the start.",
        f"Lines that end in a cross: {plural(diverged, 'run')} that diverged after it." * bool(diverged),
        omitted(_count(runs), settings, "settings"),
    ]
    return Drawn(canvas, view.line(shown), " ".join(filter(None, parts)))


def _curve_images(view: View, runs: pd.DataFrame) -> str:
    """On how many validation images the learning curves of these runs were taken."""
    counts = {(view.members[name].config.get("curve_images"), view.members[name].summary["dataset"].get("validation"))
              for name in runs.index}  # fmt: skip
    least = {min(filter(None, both), default=None) for both in counts}
    return "validation images" if len(least) > 1 or None in least else f"{least.pop():,} validation images"


def curve(view: View, name: str) -> pd.DataFrame:
    """samples, train_seconds and y, the validation error in percent, of a run's evaluations that gave a number."""
    table = rows(view.members[name], "epochs", "samples", "train_seconds", "validation_accuracy")
    table = table.assign(y=100 * (1 - table["validation_accuracy"].astype(float)))
    return table[["samples", "train_seconds", "y"]].dropna().drop_duplicates("samples")


def _varied(view: View, runs: pd.DataFrame, option: str) -> tuple[pd.DataFrame, int]:
    """The runs of settings in which the option has two values or more; how many there are."""
    if option not in view.groups.varying:
        return runs[:0], 0
    every, _ = view.panels(runs, option, most=len(runs))
    several = every.groupby("setting")[option].transform(lambda values: values.map(repr).nunique()) > 1
    return view.panels(runs[several], option) if several.any() else (runs[:0], 0)


def _errors(runs: pd.DataFrame, option: str, which: str) -> pd.DataFrame:
    """Tidy: x is the place of the option's value, y the error of complete runs in percent."""
    at = places(runs[option])[0]
    error = 100 * (1 - runs[f"{which}_accuracy"].astype(float)).where(runs["status"] == "complete")
    x = [at[value] for value in runs[option]]
    column = runs["setting"] if _count(runs) > 1 else ""  # of one, the line below the title says it
    return runs.assign(run=runs.index, row=f"{which} error (%)", column=column, x=x, y=error.clip(lower=FLOOR))


def _draw(
    view: View, runs: pd.DataFrame, option: str, heading: str, data: pd.DataFrame, *extra: Line2D
) -> tuple[Canvas, str]:
    """Panels on logarithmic axes, and what one sees in them."""
    at, join = places(runs[option])
    failures = [status for status in FAILURES if data["status"].eq(status).any()]
    marks = [Line2D([], [], color=SOFT, marker=FAILURES[s], linestyle="", label=s) for s in failures]
    draw = partial(points, join=join, possible=(FLOOR, 100.0))
    log = list(dict.fromkeys(data["row"]))
    canvas, axes = facets(data, draw, view.styles, (3.0, 3.2 / len(log) ** 0.4), log=log,
                          extra=[*extra, *marks], at=at)  # fmt: skip
    for (row, _), ax in axes.items():
        values = data[data["row"] == row]["y"].dropna()
        if len(values):  # as high as the dots: an interval may be much longer
            ax.set_ylim(values.min() / 1.3, values.max() * 1.3)
            plain_ticks(ax.yaxis)
    canvas.supxlabel(heading, fontsize=9)
    own = data[data["row"] == log[0]]
    spaced = "on a logarithmic axis" if join and min(at) > 0 else "evenly spaced"
    names = {place: f"{heading} {show(value)}" for value, place in at.items()}
    empty = own.groupby(["scheme", "x"])["y"].count()
    parts = [
        _widest(own, names),
        *(
            f"At {names[x]} no result: {', '.join(order(none))}." * (option != "lr")
            for x, none in empty[empty == 0].reset_index().groupby("x")["scheme"]
        ),
        f"From {plural(int(own['y'].notna().sum()), 'run')}; lower is better. Small dots: seeds; marks: their means,",
        "with the 95% Student t interval of the mean from three seeds on. Errors are on a logarithmic axis, the values",
        f"of {heading} {spaced if join else 'side by side, with no line between them'}.",
        "Marks on the upper edge: a run there has no result; means are over the others." * bool(failures),
    ]
    return canvas, " ".join(filter(None, parts))


def _widest(data: pd.DataFrame, names: dict[float, str]) -> str:
    """Where the mean errors of the schemes are furthest apart."""
    means = data.groupby(["column", "x", "scheme"])["y"].mean().dropna()
    if means.empty:
        return ""
    column, x = (means.groupby(level=[0, 1]).max() / means.groupby(level=[0, 1]).min()).idxmax()
    here = means[column, x]
    where = ", ".join(filter(None, (names[x], column)))
    low, high = (f"{scheme} {here[scheme]:.3g}%" for scheme in (here.idxmin(), here.idxmax()))
    return f"The schemes differ most at {where}: {low}, {high}." if len(here) > 1 else ""


def _effective_lr(view: View, name: str) -> float:
    """Median over layers at the first snapshot; NaN where no weight is free of scale, or none was measured."""
    table = rows(view.members[name], "gradients", "step", "effective_lr")
    first = table[table["step"] == table["step"].min()]["effective_lr"].dropna()
    return float(first.median()) if len(first) else np.nan


def _count(runs: pd.DataFrame) -> int:
    return int(runs["setting"].nunique())
