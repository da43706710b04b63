"""What happens inside the networks: the instruments' tables over training, by layer, or against the batch size."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from normbench.analysis.groups import label
from normbench.analysis.instrument_tables import KINDS
from normbench.plots.drawing import SOFT, means, omitted, plain_ticks, symlog_axis
from normbench.plots.facets import entering, evenly, facets, hidden, layers_of, lines, name_places, points, step_axis
from normbench.plots.view import Drawn, Shown, View

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LAYERS, SIZES = 4, 3  # columns and rows that a figure has at most
SHIFTS = {
    "w1_scaled_mean": "distribution\nmoved (s.d.)",
    "moved_scaled_mean": "each image\nmoved (s.d.)",
    "drift_scaled_mean": "mean\nmoved (s.d.)",
}
GREY: Any = {"color": SOFT, "linestyle": "--", "linewidth": 1}


def shift(view: View) -> Drawn | None:
    """A row per view of the shift since the start, a column per layer; of what enters each layer's activation."""
    shown = view.measured("shift", "step", *SHIFTS, words=("bn_mode", "since"))
    if not shown:
        return None
    table = entering(shown.table[shown.table["bn_mode"] == "probe"])
    data = _columns(table[table["since"] == "start"], SHIFTS)
    if data.empty:
        return None
    every = layers_of(table)
    layers = evenly(every, LAYERS)
    data = data[data["layer"].isin(layers)].assign(column=lambda d: d["layer"], x=lambda d: d["step"])
    floors = table[table["since"] == "halves"].groupby(["layer", "step"])["w1_scaled_mean"].mean()
    halves = [Line2D([], [], color=SOFT, linestyle=":", label="between two halves of the images")]
    extra = halves if len(floors) else []
    canvas, axes = facets(data, lines, view.styles, (2.4, 1.8), columns=layers, extra=extra)
    bent = False
    for row in SHIFTS.values():
        own = [ax for (of, _), ax in axes.items() if of == row]
        for layer in layers if row == SHIFTS["w1_scaled_mean"] else ():
            if layer in floors.index and (row, layer) in axes:
                axes[row, layer].plot(floors[layer].index, floors[layer], color=SOFT, linestyle=":", linewidth=1)
        bent |= symlog_axis(own[0], "y", data[data["row"] == row]["y"])
        for ax in own:
            ax.set_ylim(bottom=0)
    _steps(canvas, axes, data)
    end = _last(data[(data["row"] == SHIFTS["w1_scaled_mean"]) & (data["layer"] == hidden(layers))])
    parts = [
        means(f"At the end the distribution has moved, in {hidden(layers)}", end, " standard deviations of a unit"),
        "Of what enters each layer's activation (normalized, or linear without a norm), on a fixed set of validation",
        "images, whose statistics norms that use the batch work with (bn_mode probe); mean over units. Thick: means",
        "over seeds, thin: seeds. Top: Wasserstein-1 distance of a unit's distribution from that at step 0; dotted:",
        "the same between two halves of the images, which is what another choice of images would change. Middle: how",
        "far the value of one image has moved: never less, and far more where a norm pins the distribution. Bottom:",
        "how far a unit's mean has moved.",
        "Axes that reach far are linear up to 2, logarithmic beyond." * bent,
    ]
    return _drawn(view, shown, canvas, parts, omitted(len(layers), len(every), "layers"))


def train_test_shift(view: View) -> Drawn | None:
    """The shift of the weights over training, and those of the images between training and test, on one axis."""
    import pandas as pd

    found = _corrupted(view)
    if not found:
        return None
    shown, severities = found
    severity, table = severities[len(severities) // 2], shown.table
    inputs = table[(table["tensor"] == "input") & (table["statistics"] == "training") & table["layer"].notna()]
    inputs = inputs[inputs["severity"].isin([0, severity])].sort_values("severity", kind="stable")
    layers = layers_of(inputs)
    names = {"none": "other images,\nuncorrupted"} | {c: f"{c} {severity}" for c in _corruptions(table)}
    parts = [inputs.assign(column=inputs["corruption"].map(names), y=inputs["w1_scaled_mean"])]
    internal = "INTERNAL:\nover training"
    for name, scheme in shown.runs["scheme"].items():
        moved = (view.members[str(name)].summary.get("measured") or {}).get("shift")
        known = {layer: moved[layer] for layer in layers if layer in moved} if isinstance(moved, Mapping) else {}
        own = {"run": name, "scheme": scheme, "column": internal, "layer": list(known), "y": list(known.values())}
        parts.insert(0, pd.DataFrame(own))
    row = "a layer's input is\naway by (s.d.)"
    data = pd.concat([p for p in parts if len(p)]).assign(row=row, y=lambda d: d["y"].where(d["y"] > 0))
    data, at = _on_layers(data, layers)
    canvas, axes = facets(data, points, view.styles, (1.6, 2.6), log=[row], at=at)
    last = data[data["layer"] == layers[-1]]
    return _drawn(view, shown, canvas, [
        means(f"The input of {layers[-1]} over training", last[last["column"] == internal], " s.d."),
        means("With corrupted images", last[~last["column"].isin([internal, names["none"]])], " s.d."),
        "Wasserstein-1 distance, mean over units, between two distributions of what a layer gets. Internal covariate",
        "shift: the same images, with the weights of the start and of the end (bn_mode probe); 0, and not on a",
        "logarithmic axis, where the images come in. The others: the weights of the end, with training images and with",
        f"validation images, also corrupted at severity {severity} (statistics from training). The shift of the pixels",
        "is the same for all schemes. Dots: seeds; lines: means.",
        "" if (row, internal) in axes else "No shift over training was measured: the instrument shift supplies it.",
    ])  # fmt: skip


def train_test_accuracy(view: View) -> Drawn | None:
    """Accuracy against the severity of each corruption; also with statistics re-estimated on corrupted images."""
    import pandas as pd

    found = _corrupted(view)
    if not found:
        return None
    shown, severities = found
    table = shown.table[shown.table["layer"].isna() & shown.table["accuracy"].notna()]
    table = table[table["images"].isna() | (table["images"] == table["images"].max())]
    kinds = {"training": "accuracy (%),\nstatistics from training", "re-estimated": "accuracy (%),\nre-estimated"}
    table = table[table["statistics"].isin(kinds)].assign(
        row=table["statistics"].map(kinds), y=100 * table["accuracy"], x=table["severity"]
    )
    if not _corruptions(table):
        return None
    # severity 0 begins every line
    data = pd.concat(
        table[(table["corruption"] == name) | (table["severity"] == 0)].assign(column=name)
        for name in _corruptions(table)
    )
    canvas, axes = facets(data, points, view.styles, (1.9, 2.2), rows=kinds.values())
    for ax in axes.values():
        ax.set_xticks([0, *severities])
    canvas.supxlabel("severity of the corruption (0: uncorrupted)", fontsize=9)
    images = table["images"].max()
    worst = data[(data["statistics"] == "training") & (data["x"] == severities[-1])]
    return _drawn(view, shown, canvas, [
        means(f"Accuracy at severity {severities[-1]}, in the mean over corruptions", worst, "%"),
        "Validation images, not trained on, after a corruption. Above with the running statistics of training; below,",
        f"where a scheme keeps such statistics, with those of {images:.0f} other images with the same corruption."
        if images == images else "where a scheme keeps such statistics, with those of corrupted images.",
        "Dots: seeds; lines: means.",
    ])  # fmt: skip


def batch_noise(view: View) -> Drawn | None:
    """A column per layer, a row per way that the lower layers work."""
    shown = view.measured("batch_noise", "step", "noise_mean", words=("lower", "tensor"), over=("batch_size",))
    if not shown:
        return None
    lower = {"population": "lower layers on\nexact statistics", "training": "lower layers on\nthe batch's own"}
    table = _last(shown.table)
    table = table[(table["tensor"] == "linear") & (table["noise_mean"] > 0) & table["lower"].isin(lower)]
    sizes = sorted({int(size) for size in table["batch_size"]})
    if len(sizes) < 2:
        return None
    every = layers_of(table)
    layers = evenly(every, LAYERS)
    data = table[table["layer"].isin(layers)]
    data = data.assign(row=data["lower"].map(lower), column=data["layer"], y=data["noise_mean"],
                       x=np.log2(data["batch_size"].astype(float)))  # fmt: skip
    law = Line2D([], [], **GREY, label="1 / sqrt(batch size)")
    at = {size: float(np.log2(size)) for size in sizes}
    canvas, axes = facets(data, points, view.styles, (2.4, 2.2), columns=layers,
                          log=list(lower.values()), extra=[law], at=at)  # fmt: skip
    for ax in axes.values():
        ax.plot(list(at.values()), 1 / np.sqrt(sizes), **GREY)
        plain_ticks(ax.yaxis)
    canvas.supxlabel("batch size", fontsize=9)
    small = data[(data["batch_size"] == sizes[0]) & (data["lower"] == "training") & (data["layer"] == hidden(layers))]
    return _drawn(view, shown, canvas, [
        means(f"In training at batch size {sizes[0]} means of {hidden(layers)} vary by", small, " s.d."),
        "Standard deviation of a unit's mean over mini-batches of the training set, at frozen weights after the last",
        "step, in standard deviations of the unit; mean over units; dots: seeds, lines: their means. Tensor: linear,",
        "the input of the norm. Above, the norms before a layer work with exact statistics: images are then",
        "independent, and a unit with one value per image follows 1 / sqrt(batch). Below, they work as in training:",
        "batch norm centres each batch, so that behind it the means of batches hardly differ.",
    ], omitted(len(layers), len(every), "layers"), "batch_size")  # fmt: skip


def running_statistics(view: View) -> Drawn | None:
    """How far the running averages are from the exact statistics, by layer; a row per batch size."""
    numbers = {"mean_error": "error of the running mean (s.d.)", "var_error": "error of the running variance (share)"}
    shown = view.measured("statistics", "step", "time", *numbers, words=("statistics", "norm"), over=("batch_size",))
    if not shown:
        return None
    table = _last(shown.table)
    table = table[(table["statistics"] == "ema") & table["layer"].notna() & table["time"].isna()]
    # A layer with several norms, such as a recurrent cell, has a place for each.
    names = table["layer"].where(table["norm"] == "norm", table["layer"].astype(str) + "." + table["norm"].astype(str))
    data = _columns(table.assign(layer=names), numbers, place="column")
    data = _sizes(data[data["y"] > 0])
    if data.empty:
        return None
    data, at = _on_layers(data, layers_of(data))
    canvas, _ = facets(data, points, view.styles, (3.0, 2.0), log=list(dict.fromkeys(data["row"])), at=at)
    small = data[(data["batch_size"] == data["batch_size"].min()) & (data["column"] == numbers["mean_error"])]
    return _drawn(view, shown, canvas, [
        means(f"In the mean over layers, at {data['row'].iloc[0]}, the running mean is off by", small, " s.d."),
        "After the last step, root mean square over units of how far the running mean is from the exact one of the",
        "training images, and of how far the running variance is from it, as a share (0.1: 10 percent). Dots: seeds;",
        "lines: means. Schemes without running statistics have none.",
    ], _sizes_omitted(shown), "batch_size")  # fmt: skip


def inference_statistics(view: View) -> Drawn | None:
    """Validation error by the kind of statistics that inference works with; a column per batch size."""
    shown = view.measured("statistics", "step", "accuracy", words=("statistics", "norm"), over=("batch_size",))
    if not shown:
        return None
    table = _last(shown.table)
    table = table[table["layer"].isna() & table["accuracy"].notna() & table["statistics"].isin(KINDS)]
    data = _sizes(table.assign(y=(100 * (1 - table["accuracy"])).clip(lower=0.01)))
    if data.empty:
        return None
    at = {kind: float(place) for place, kind in enumerate(KINDS)}
    data = data.assign(x=data["statistics"].map(at), column=data["row"], row="validation error (%)")
    draw = partial(points, join=False, possible=(0.01, 100.0))
    canvas, _ = facets(data, draw, view.styles, (2.8, 2.8), log=["validation error (%)"], at=at)
    small = data[data["batch_size"] == data["batch_size"].min()]
    return _drawn(view, shown, canvas, [
        means(f"Error at {small['column'].iloc[0]} with running statistics", small[small["statistics"] == "ema"], "%"),
        means("With the exact ones", small[small["statistics"] == "precise"], "%"),
        "After the last step, error on the validation set with the running statistics (ema: what inference usually",
        "works with), averages over mini-batches at the present weights (averages), the exact ones (precise), and",
        "those of each mini-batch, as in training (batch): what falls from batch to ema is the gap between training",
        "and inference; where precise is much lower than ema, the averages are to blame. Dots: seeds; marks: means,",
        "with the 95% Student t interval from three seeds on.",
    ], _sizes_omitted(shown), "batch_size")  # fmt: skip


def depth(view: View) -> Drawn | None:
    """Gradients, relative updates, units that are dead or saturated, by layer; a row per moment."""
    import pandas as pd

    units = view.measured("units", "step", "dead", "zeros", "saturated")
    weights = view.measured("gradients", "step", "gradient", "update_ratio")
    shown = weights or units
    if not shown:
        return None
    moments = {"min": "before the first update", "max": "at the end"}
    titles = {"gradient": "|gradient| of the weights", "update_ratio": "|update| / |weights|",
              "dead": "dead units (share)",
              "saturated": "saturated values (share)", "zeros": "values that are 0 (share)"}  # fmt: skip
    parts = []
    for source in filter(None, (weights, units)):
        table = source.table[source.table["run"].isin(shown.runs.index)]
        table = table[table["layer"].notna() & ~table["tensor"].astype(str).str.endswith("linear")]
        for key, moment in moments.items():
            for number, title in titles.items():
                if number not in table or (number == "zeros" and table.get("saturated", pd.Series()).notna().any()):
                    continue
                known = table[table[number].notna()]
                there = known[known["step"] == known.groupby("run")["step"].transform(key)]
                # of all weights of a layer: the root of the sum of squares; of others the mean over its tensors
                by = there.groupby(["run", "scheme", "layer"], sort=False)[number]
                values = by.agg(lambda g: float(np.sqrt((g**2).sum()))) if number == "gradient" else by.mean()
                parts.append(values.rename("y").reset_index().assign(row=moment, column=title))
    data = pd.concat(parts) if parts else pd.DataFrame()
    if data.empty or (not weights and data["layer"].nunique() < 2):  # the units of one layer have no depth
        return None
    data, at = _on_layers(data, layers_of(data))
    canvas, axes = facets(data, points, view.styles, (2.4, 2.1), rows=moments.values(),
                          columns=titles.values(), sharey="col")  # fmt: skip
    for (_, column), ax in axes.items():
        layers, values = (data[data["column"] == column][name] for name in ("layer", "y"))
        name_places(ax, {layer: place for layer, place in at.items() if layer in set(layers)})
        if column in (titles["gradient"], titles["update_ratio"]) and (values > 0).any():
            ax.set_yscale("log")
            plain_ticks(ax.yaxis)
        else:
            ax.set_ylim(-0.03 * max(0.1, values.max()), 1.05 * max(0.1, values.max()))
    seen, what = data[data["row"] == moments["max"]], data["column"].iloc[0]
    seen = seen[seen["column"] == what].pivot_table(index=["scheme", "run"], columns="x", values="y")
    if what == titles["gradient"]:
        what, seen["y"] = "the gradient in the first layer over that in the last", seen.iloc[:, 0] / seen.iloc[:, -1]
    else:
        what, seen["y"] = f"{what}, mean over layers", seen.mean(axis=1)
    return _drawn(view, shown, canvas, [
        means(f"At the end, {what}", seen),
        "By layer, from the input to the output. Dots: seeds; lines: means. Gradient: Frobenius norm for all weights",
        "of a layer, on a fixed batch of validation images in training mode; level where no layer is starved. Update:",
        "what the next update changes, over the weights' norm (at the end: the last snapshot before it). Dead: units",
        "whose activation is the same for all images of the probe. Saturated: activations near the bounds of a",
        "sigmoid or tanh. All of the tensor activation, in bn_mode probe.",
    ])  # fmt: skip


def landscape(view: View) -> Drawn | None:
    """Santurkar et al. 2018 (arXiv 1805.11604, fig. 4): a column per scheme, two rows of bands, a row of smoothness."""
    import pandas as pd

    bands = {"loss": "loss", "change": "change of\nthe gradient"}
    smooth = "lr × smoothness"
    numbers = [f"{band}_{end}" for band in bands for end in ("min", "max")]
    shown = view.measured("landscape", "step", *numbers, "lr_smoothness", words=("kind",))
    if not shown:
        return None
    table = shown.table.assign(x=shown.table["step"], column=shown.table["scheme"])
    ours = [*numbers, "lr_smoothness"]
    table[ours] = table[ours].where(table[ours] > 0)  # what is not positive has no place on a logarithmic axis
    absolute, relative = (table[table["kind"] == kind] for kind in ("absolute", "relative"))
    parts = [absolute.assign(row=row, low=absolute[f"{band}_min"], high=absolute[f"{band}_max"],
                             y=absolute[f"{band}_max"]) for band, row in bands.items()]  # fmt: skip
    data = pd.concat([*parts, relative.assign(row=smooth, y=relative["lr_smoothness"])])
    canvas, axes = facets(data, lines, view.styles, (1.9, 1.9), log=[*bands.values(), smooth])
    _steps(canvas, axes, data)
    return _drawn(view, shown, canvas, [
        means(f"At the end, {smooth}", _last(relative).assign(y=lambda table: table["lr_smoothness"])),
        "At each snapshot, the mini-batch of the next update, in training mode. Bands, one for each seed on top of",
        "one another: over steps of 0.05 to 0.4 times the gradient (as published), the least and greatest loss after",
        "such a step (top), and how far the gradient there is from the one here (middle: |difference|): narrow and",
        "low bands mean that the gradient holds for a longer way; the line is the mean of the greatest. Bottom: the",
        "greatest |change of the gradient| / |step| over steps of 1/4 to 4 times the run's own learning rate, times",
        "that rate, which has no unit; thin: seeds, thick: mean; above about 2 plain gradient descent would not be",
        "stable.",
    ])  # fmt: skip


def time_steps(view: View) -> Drawn | None:
    """Recurrent networks: mean and standard deviation along the sequence; a column per tensor."""
    shown = view.measured("time_steps", "step", "time", "mean", "std", words=("bn_mode",))
    if not shown:
        return None
    table = _last(shown.table[shown.table["bn_mode"] == "probe"])
    every = layers_of(table)
    layers = evenly(every, 2)
    table = table[table["layer"].isin(layers)].sort_values("time", kind="stable")
    numbers = {"std": "standard deviation", "mean": "mean"}
    data = _columns(table, numbers).assign(column=lambda d: d["tensor"], x=lambda d: d["time"])
    rows: list[str] = list(numbers.values())
    if len(every) > 1:
        data["row"], rows = data["layer"] + ": " + data["row"], [f"{layer}: {n}" for layer in layers for n in rows]
    tensors = ("linear", "normalized", "activation")
    canvas, _ = facets(data, lines, view.styles, (3.0, 2.0), rows=rows, columns=tensors)
    canvas.supxlabel("time step", fontsize=9)
    end = data[(data["row"] == rows[0]) & (data["column"] == tensors[0]) & (data["x"] == data["x"].max())]
    return _drawn(view, shown, canvas, [
        means(f"At the last time step, {rows[0]} of {tensors[0]}", end),
        "Mean and standard deviation over images and units at each time step, after the last update; thin: seeds,",
        "thick: their mean. linear: W_x x + W_h h before any norm; normalized: what enters the gates, where there is",
        "a norm; activation: h. bn_mode probe: norms that use the batch work with the statistics of these images, a",
        "set for each time step. Level lines: the network sees a steady signal along the sequence.",
    ], omitted(len(layers), len(every), "layers"))  # fmt: skip


def _drawn(view: View, shown: Shown, canvas: Any, parts: list[str], more: str = "", *axes: str) -> Drawn:
    return Drawn(canvas, view.line(shown.runs, *axes), " ".join(filter(None, [*parts, shown.words, more])))


def _columns(table: pd.DataFrame, numbers: Mapping[str, str], place: str = "row") -> pd.DataFrame:
    """A row or column of panels for each number that was measured: {its column: its label}."""
    import pandas as pd

    parts = [table.assign(**{place: words, "y": table[number]}) for number, words in numbers.items()]
    return pd.concat(parts).dropna(subset="y")


def _on_layers(data: pd.DataFrame, layers: list[str]) -> tuple[pd.DataFrame, dict[str, float]]:
    """x is the depth: 0 for the first layer; and the places of the layers."""
    at = {layer: float(place) for place, layer in enumerate(layers)}
    return data.assign(x=data["layer"].map(at)), at


def _sizes(data: pd.DataFrame) -> pd.DataFrame:
    """A row of panels for each batch size; of many, some."""
    sizes = evenly(sorted(set(data["batch_size"])), SIZES)
    kept = data[data["batch_size"].isin(sizes)].sort_values("batch_size", kind="stable")
    return kept.assign(row=[label((("batch_size", size),)) for size in kept["batch_size"]])


def _sizes_omitted(shown: Shown) -> str:
    total = shown.runs["batch_size"].nunique()
    return omitted(min(SIZES, total), total, "batch sizes")


def _last(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last snapshot."""
    return table[table["step"] == table.groupby("run")["step"].transform("max")]


def _steps(canvas: Any, axes: dict[tuple[str, str], Axes], data: pd.DataFrame) -> None:
    """One axis of training steps, logarithmic where snapshots are denser at the start."""
    positive = data["x"][data["x"] > 0]
    for ax in axes.values():
        if len(positive) and positive.min() < 0.01 * positive.max():
            step_axis(ax, positive.max())
        else:
            ax.set_xlim(left=0)
    canvas.supxlabel("training step", fontsize=9)


def _corrupted(view: View) -> tuple[Shown, list[int]] | None:
    """Measurements of train_test_shift, and the severities of its corruptions."""
    numbers = ("severity", "images", "accuracy", "w1_scaled_mean")
    shown = view.measured("train_test_shift", *numbers, words=("corruption", "statistics", "tensor", "layer"))
    if not shown:
        return None
    severities = sorted({int(n) for n in shown.table["severity"].dropna() if n > 0})
    return (shown, severities) if severities else None


def _corruptions(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table["corruption"][table["severity"] > 0]))
