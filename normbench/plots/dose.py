"""A dose and its response: an option of a scheme that makes its layers shift more, and how fast it then learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from normbench.analysis.measured import rows
from normbench.analysis.targets import reached
from normbench.plots.drawing import panels, plain_ticks
from normbench.plots.facets import layers_of
from normbench.plots.palette import palette
from normbench.plots.view import Drawn, View
from normbench.runs import Run

TARGET, FEWEST = 0.9, 3  # validation accuracy; doses


def draw(view: View) -> Drawn | None:
    """Shift against updates to 90%: a dot per run, means joined along the doses; None without an option of doses."""
    dosed = doses(view)
    shown = view.measured("shift", "step", "w1_scaled_mean", words=("bn_mode", "since", "layer", "tensor"))
    if not dosed or not shown:
        return None
    layers = layers_of(shown.table)
    layer, runs = layers[(len(layers) - 1) // 2], view.best[view.best["status"] == "complete"]
    runs = runs[runs["study"] == view.study] if view.study else runs
    members = {name: view.members[name] for name in runs.index}
    data = runs.assign(
        x=[shift(run, layer) for run in members.values()],
        y=[at["steps"] if (at := reached(run, TARGET)) else math.inf for run in members.values()],
        dose=[dosed.get(name, math.nan) for name in runs.index],
        choice=[run.choices["norm"] for run in members.values()],
    ).dropna(subset="x")
    there = data[np.isfinite(data["y"])]
    if there.empty:
        return None
    canvas, [[ax]] = panels(1, 1, 6.2, 4.2)
    top = 1.2 * float(there["y"].max())
    for choice, style in palette(dict.fromkeys(data["choice"])).items():
        own = data[data["choice"] == choice]
        ax.plot(own["x"], own["y"].clip(upper=top), ".", color=style.color, markersize=4, alpha=0.6)
        means = own.groupby("dose", dropna=False)[["x", "y"]].mean()
        known = means[np.isfinite(means["y"])]
        ax.plot(known["x"], known["y"], label=choice, **style.drawn)
        late = means[~np.isfinite(means["y"])]
        ax.plot(late["x"], [top] * len(late), style.marker, color=style.color, mfc="white")
        for dose, mean in means.iterrows():
            words = choice if math.isnan(float(str(dose))) else f"{dose:g}"
            ax.annotate(words, (mean["x"], min(mean["y"], top)), (-7, 5), textcoords="offset points", ha="right",
                        fontsize=8, color=style.color)  # fmt: skip
    ax.set(yscale="log", xlabel=f"shift of what {layer} hands on, from start to end (s.d.)")
    ax.set_ylabel(f"updates to {TARGET:.0%} validation accuracy")
    ax.margins(0.08)
    plain_ticks(ax.yaxis)
    ax.set_xlim(left=0)
    canvas.legend(loc="outside upper center", ncols=3)
    return Drawn(canvas, view.line(runs.loc[data.index]), " ".join([
        _sentence(data),
        f"From {len(data)} complete runs, each scheme at its own best lr. Dots: runs; marks: means over seeds, joined",
        "along the doses, which are written beside them. Across: Wasserstein-1 distance, mean over units, between what",
        f"{layer} hands to the next layer at the start and at the end, as training sees it (bn_mode probe or batch,",
        "whichever is larger), in standard deviations of a unit. Up: updates to",
        f"{TARGET:.0%}, logarithmic, interpolated between evaluations; a run that never gets there stands at the upper",
        "edge, and so, hollow, does the mean of runs of which one does not. Were shift alone what slows learning, all",
        "schemes would lie on one rising line.",
    ]))  # fmt: skip


def doses(view: View) -> dict[str, float]:
    """Run -> its dose: the number of an option of a norm that has three values or more for one scheme."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, run in view.members.items():
        for key, value in view.groups.configured[name].items():
            if key.startswith("norm.") and isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault((run.choices["norm"], key), {})[name] = value
    most = max(found.values(), key=lambda values: len(set(values.values())), default={})
    return {name: float(value) for name, value in most.items()} if len(set(most.values())) >= FEWEST else {}


def shift(run: Run, layer: str) -> float:
    """Of a layer's activation from start to end, as training sees it; NaN where it was not measured."""
    table = rows(run, "shift", "step", "w1_scaled_mean")
    if "since" not in table:
        return math.nan
    own = table[(table["since"] == "start") & (table["layer"] == layer) & (table["tensor"] == "activation")]
    return float(own[own["step"] == own["step"].max()]["w1_scaled_mean"].max())


def _sentence(data: Any) -> str:
    """What one sees: the mean of each scheme and dose."""
    by = data.groupby(["choice", "dose"], dropna=False, sort=True)
    parts = []
    for (choice, dose), own in by:
        name = choice if math.isnan(dose) else f"{choice} {dose:g}"
        y = float(own["y"].mean())
        parts.append(f"{name}: {own['x'].mean():.2f} s.d., {'never' if math.isinf(y) else f'{y:.0f} updates'}")
    return "; ".join(parts) + "."
