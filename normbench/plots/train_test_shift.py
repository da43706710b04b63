"""Two kinds of covariate shift on one axis: that of the weights over training, and that of the images between training
and test; and what the second costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from normbench.analysis.groups import Groups, label
from normbench.analysis.measured import choose, rows
from normbench.plots.by_layer import in_order, layer_axis, mean_over_seeds, once
from normbench.plots.drawing import Figure, finish, omitted, panels, plain_ticks
from normbench.plots.palette import Style, palette
from normbench.runs import Run

NAME, TITLE = "train_test_shift", "Two shifts: internal, over training, and between training and test images"
SCHEMES, SHIFT = 5, "w1_scaled_mean"
INTERNAL: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 6, "linewidth": 2.4}
CONTROL: dict[str, Any] = {"color": "#7F7F7F", "linestyle": ":"}
Runs = Sequence[Run]


def draw(groups: Groups) -> list[Figure]:
    """A column per scheme; above, both shifts by layer; below, accuracy against severity."""
    chosen = choose(groups, NAME, "corruption", "severity", "statistics", "tensor", "accuracy", SHIFT)
    tables = {s: [t for e in es if len(t := network_rows(e))] for s, es in chosen.runs.items()} if chosen else {}
    severities = sorted({int(n) for runs in tables.values() for table in runs for n in table.severity if n > 0})
    if not chosen or not severities:
        return [Figure(NAME, TITLE, f"Not drawn: no complete run has measured it. The instrument {NAME} supplies it.")]
    schemes, severity = [s for s in tables if tables[s]][:SCHEMES], severities[len(severities) // 2]
    corruptions = list(dict.fromkeys(n for runs in tables.values() for t in runs for n in t.corruption[t.severity > 0]))
    styles = {name: style for name, style in palette(["none", *corruptions]).items() if name in corruptions}
    canvas, axes = panels(2, len(schemes), max(2.3, 9.6 / len(schemes)), 2.6, sharey="row")
    found: dict[str, dict[Run, pd.DataFrame]] = {}
    for scheme in schemes:
        found[scheme] = {run: layer_rows(run, severity) for run in chosen.runs[scheme]}
    layers = in_order(table.layer for runs in found.values() for table in runs.values())
    for scheme, above, below in zip(schemes, axes[0], axes[1], strict=True):
        _draw_shifts(above, layers, found[scheme], styles)
        above.set_title(scheme, fontweight="bold")
        layer_axis(above, layers)
        _draw_accuracy(below, tables[scheme], styles)
        below.set_xticks([0, *severities])
        below.set_xlabel("severity (0: uncorrupted)")
    axes[0][0].set_ylabel("a layer's input is away by\n(standard deviations)")
    axes[1][0].set_ylabel("accuracy (%)")
    axes[0][0].set_yscale("log")  # dark pixels that hardly vary move by tens of standard deviations
    axes[0][0].set_ylim(bottom=axes[0][0].get_ylim()[0] / 2)  # room for the words below
    plain_ticks(axes[0][0].yaxis)
    _legends(canvas, styles, severity)
    moved = any(internal(e, layers) is not None for s in schemes for e in chosen.runs[s])
    n = max((int(n) for runs in tables.values() for t in runs for n in t.images.dropna()), default=0)
    title = TITLE if not chosen.setting else f"{TITLE}: {label(chosen.setting)}"
    parts = [
        "Above, by layer, the distance (Wasserstein-1, mean over units, in standard deviations of a unit) between two",
        "distributions of what the layer gets. Black, solid: internal covariate shift, the same images, with the",
        "weights of the start and of the end (bn_mode probe): 0 where the images come in, which don't change.",
        f"Coloured, dashed: train-test shift at severity {severity}, the same weights, those of the end, with training",
        "images and with corrupted ones (validation images, not trained on; statistics from training). Grey: with",
        "uncorrupted ones, what another choice of images changes. The pixels' shift belongs to the data: it is the",
        "same for all schemes. Below: accuracy on these images, and where a scheme keeps running statistics, the same",
        f"with those re-estimated on {n} other images with the same corruption.",
        "Means over seeds. Colours are corruptions here, not schemes.",
        "" if moved else "No shift over training was measured: the instrument shift supplies it.",
        chosen.words,
        omitted(len(schemes), [s for s in tables if tables[s]], "schemes"),
    ]
    return [finish(NAME, title, " ".join(filter(None, parts)), canvas, groups.synthetic)]


def network_rows(run: Run) -> pd.DataFrame:
    """Accuracies: corruption, severity, statistics, images, accuracy."""
    table = rows(run, NAME, "severity", "images", "accuracy")
    if not {"corruption", "statistics"} <= set(table.columns):
        return table[:0]
    return table[table.layer.isna() & table.accuracy.notna() & table.severity.notna() & table.corruption.notna()]


def layer_rows(run: Run, severity: int) -> pd.DataFrame:
    """corruption, layer, SHIFT of each layer's input, at one severity and of the uncorrupted images."""
    table = rows(run, NAME, "severity", SHIFT)
    if not {"corruption", "statistics", "tensor"} <= set(table.columns):
        return pd.DataFrame(columns=["corruption", "layer", "severity", SHIFT])
    inputs = table[(table.tensor == "input") & (table.statistics == "training") & table.layer.notna()]
    return inputs[inputs.severity.isin([0, severity]) & inputs[SHIFT].notna()]


def internal(run: Run, layers: Sequence[str]) -> pd.Series | None:
    """Layer -> how far its input has moved from the start to the end, as the run's summary says; None: not measured."""
    found = (run.summary.get("measured") or {}).get("shift")
    known = {layer: found[layer] for layer in layers if layer in found} if isinstance(found, Mapping) else {}
    return pd.Series(known, dtype=float) if known else None


def _draw_shifts(ax: Axes, layers: Sequence[str], runs: Mapping[Run, pd.DataFrame], styles: dict[str, Style]) -> None:
    def line(parts: Iterable[pd.Series | None], **look: Any) -> None:
        if known := [once(part).reindex(layers) for part in parts if part is not None and len(part)]:
            ax.plot(range(len(layers)), mean_over_seeds(known), **look)

    for name, style in styles.items():
        of_it = [t[(t.corruption == name) & (t.severity > 0)].set_index("layer")[SHIFT] for t in runs.values()]
        line(of_it, color=style.color, marker=style.marker, linestyle="--", linewidth=1.0, markerfacecolor="white")
    line((t[t.severity == 0].set_index("layer")[SHIFT] for t in runs.values()), **CONTROL)
    line(moved := [internal(run, layers) for run in runs], **INTERNAL)
    if any(part is not None for part in moved):  # zero, which is not on a logarithmic axis
        ax.text(-0.35, 0.03, "internal: 0", transform=ax.get_xaxis_transform(), fontsize=7, fontweight="bold")


def _draw_accuracy(ax: Axes, tables: Sequence[pd.DataFrame], styles: dict[str, Style]) -> None:
    """Severity 0 begins every line; of re-estimated statistics those of the most images."""
    looks: dict[str, dict[str, Any]] = {"re-estimated": {"linestyle": ":", "markerfacecolor": "white"}, "training": {}}
    for kind, look in looks.items():
        of_kind = [t[t.statistics == kind] for t in tables]
        of_kind = [t[t.images.isna() | (t.images == t.images.max())] for t in of_kind if len(t)]
        for name, style in styles.items():
            one = [t[(t.corruption == name) | (t.severity == 0)].set_index("severity").accuracy for t in of_kind]
            if one:
                mean = 100 * mean_over_seeds(one).sort_index()
                ax.plot(mean.index, mean, color=style.color, marker=style.marker, linewidth=1.2, **look)


def _legends(canvas: Any, styles: dict[str, Style], severity: int) -> None:
    handles = [
        Line2D([], [], **INTERNAL, label="INTERNAL, over training"),
        *(Line2D([], [], color=s.color, marker=s.marker, linestyle="--", linewidth=1.0, markerfacecolor="white",
                 label=f"TRAIN-TEST, {name} {severity}") for name, s in styles.items()),
        Line2D([], [], **CONTROL, label="train-test, uncorrupted"),
    ]  # fmt: skip
    columns = max(2, int(canvas.get_figwidth() / 2.3))
    canvas.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=3)
    kinds = [
        Line2D([], [], color="#555555", marker="o", label="accuracy with statistics from training"),
        Line2D([], [], color="#555555", marker="o", linestyle=":", markerfacecolor="white", label="re-estimated"),
    ]
    canvas.legend(handles=kinds, loc="outside lower center", ncols=2, handlelength=3)
