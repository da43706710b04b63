"""Figure 1 of Ioffe & Szegedy 2015 (arXiv:1502.03167) beside ours: results/bn2015_fig1/report/paper.md and paper.png.

The paper's numbers were read off its figure: accuracy to 0.5 points, steps to 500, percentiles to 0.05.
Run the study first: normbench run experiment=bn2015_fig1
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from normbench.analysis.groups import read
from normbench.analysis.measured import rows
from normbench.plots.drawing import look
from normbench.plots.facets import entering
from normbench.runs import Run, load

BAND = ["p15", "p50", "p85"]
STEPS = np.array([4400, 5700, 7000, 8300, 11000, 15000, 19000, 24000, 29000, 37000, 42000, 48000])
ACCURACY = {
    "none": [0.76, 0.84, 0.905, 0.916, 0.938, 0.956, 0.964, 0.971, 0.971, 0.973, 0.975, np.nan],
    "batch": [0.958, 0.965, 0.967, 0.969, 0.969, 0.975, 0.978, 0.979, 0.982, 0.983, 0.984, 0.985],
}
SHARE = np.array([0.01, 0.03, 0.05, 0.08, 0.10, 0.15, 0.20, 0.30, 0.50, 0.70, 0.99])  # of the training
BANDS = {  # percentiles 15, 50, 85 of one "typical" unit of the last hidden layer
    "none": [
        [0.58, 0.11, -1.18, -0.80, -0.92, -1.46, -1.66, -1.82, -1.68, -1.69, -1.74],
        [0.58, 0.11, -0.11, 0.73, 1.01, 0.53, 0.07, -0.26, -0.19, -0.11, 0.07],
        [0.58, 0.11, 1.14, 2.00, 2.04, 1.35, 1.00, 1.01, 1.22, 1.45, 1.70],
    ],
    "batch": [
        [-1.28, -1.41, -1.45, -1.57, -1.51, -1.61, -1.65, -1.70, -1.81, -1.88, -1.93],
        [-0.08, -0.04, -0.01, -0.03, -0.03, -0.03, 0.03, 0.01, 0.01, 0.03, -0.03],
        [1.35, 1.43, 1.47, 1.47, 1.57, 1.57, 1.61, 1.73, 1.86, 1.93, 1.97],
    ],
}


@dataclass(frozen=True)
class Units:
    """What the tracked units of one layer did. `bands` is [units, snapshots, 3]: percentiles 15, 50 and 85."""

    layer: str
    tensor: str
    steps: np.ndarray
    bands: np.ndarray
    names: list[int]

    @property
    def excursion(self) -> np.ndarray:
        """Per unit: the highest median of all snapshots minus the lowest."""
        return np.ptp(self.bands[:, :, 1], axis=1)

    @property
    def relative(self) -> np.ndarray:
        """Per unit: the excursion over the mean width p85 - p15 of its band; NaN for a unit without any width."""
        width = (self.bands[:, :, 2] - self.bands[:, :, 0]).mean(axis=1)
        return np.divide(self.excursion, width, out=np.full_like(width, np.nan), where=width > 0)

    @property
    def typical(self) -> int:
        """The unit with the median excursion."""
        return int(np.argsort(self.excursion, kind="stable")[(len(self.excursion) - 1) // 2])


def main(folder: Path) -> None:
    groups = read(load(folder))
    complete = sorted((run for run in groups.members if run.status == "complete"), key=lambda run: -run.seed)
    entries = {groups.scheme_of(run): run for run in complete}  # of the lowest seed
    curves = {name: entries[name].epochs[["step", "validation_accuracy"]].to_numpy().T for name in ACCURACY}
    units = {name: tracked_units(activations(entries[name])) for name in ACCURACY}
    assert all(units.values()), "a run has no rows of single units"
    report = folder / "report"
    report.mkdir(exist_ok=True)
    (report / "paper.md").write_text(table(curves, units))  # type: ignore[arg-type]
    with look():
        picture(curves, units).savefig(report / "paper.png", dpi=110)  # type: ignore[arg-type]
    print(report / "paper.md")


def activations(run: Run) -> pd.DataFrame:
    """What enters each layer's activation, in bn_mode "probe"."""
    found = rows(run, "activations", "step", "unit", *BAND)
    return entering(found[found["bn_mode"] == "probe"].assign(run=run.name))


def tracked_units(table: pd.DataFrame) -> Units | None:
    """The units that were tracked in the last layer before the output, of one run's rows of what enters activations."""
    table = table[table["unit"].notna()]
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "output"]
    if not layers:
        return None
    table = table[table["layer"] == layers[-1]].astype({"unit": int})
    wide = [table.pivot_table(index="unit", columns="step", values=name, dropna=False) for name in BAND]
    bands = np.stack([part.to_numpy(dtype=float) for part in wide], axis=2)
    if not np.isfinite(bands).all():
        return None
    steps = wide[0].columns.to_numpy(dtype=float)
    return Units(layers[-1], str(table["tensor"].iloc[0]), steps, bands, list(wide[0].index))


def table(curves: dict[str, np.ndarray], units: dict[str, Units]) -> str:
    lines = ["# Figure 1 of Ioffe & Szegedy 2015, beside ours", "",
             "Accuracy on held-out images at a step (ours: validation).", "",
             "| step | none, paper | none, ours | batch, paper | batch, ours |", "|---|---|---|---|---|"]  # fmt: skip
    at = {name: np.interp(STEPS, *curve) for name, curve in curves.items()}
    for i, step in enumerate(STEPS):
        cells = [f"{value:.3f}" for name in ACCURACY for value in (ACCURACY[name][i], at[name][i])]
        lines.append(f"| {step:,} | " + " | ".join(cells) + " |")
    lines += ["", "| of the last hidden layer's units | paper | ours |", "|---|---|---|"]
    for name, found in units.items():
        low, half, high = np.quantile(found.excursion, [0, 0.5, 1])
        theirs = np.ptp(BANDS[name][1])
        lines.append(f"| {name}: excursion of the median, highest minus lowest | {theirs:.2f} (one unit) | {half:.2f} "
                     f"({low:.2f} to {high:.2f}, {len(found.names)} units) |")  # fmt: skip
    none, batch = units["none"], units["batch"]
    ratio = np.ptp(BANDS["none"][1]) / np.ptp(BANDS["batch"][1])
    ours = np.median(none.excursion) / np.median(batch.excursion)
    lines.append(f"| excursion of none over that of batch | {ratio:.1f} | {ours:.1f} (medians over units) |")
    for name, found in units.items():
        theirs = np.ptp(BANDS[name][1]) / np.mean(np.subtract(BANDS[name][2], BANDS[name][0]))
        lines.append(f"| {name}: excursion over the band's mean width p85 - p15 | {theirs:.2f} | "
                     f"{np.nanmedian(found.relative):.2f} |")  # fmt: skip
    smaller = (batch.excursion[:, None] < none.excursion[None, :]).mean()
    lines.append(f"| a unit of batch wanders less than one of none, over all pairs | | {smaller:.1%} |")
    for name, found in units.items():
        width = np.median(found.bands[:, :, 2] - found.bands[:, :, 0], axis=0)
        theirs_width = np.subtract(BANDS[name][2], BANDS[name][0])
        ours_at = np.interp(SHARE[[0, 4, -1]], found.steps / found.steps[-1], width)
        lines.append(f"| {name}: width p85 - p15 at 1%, 10%, 99% of training | "
                     + ", ".join(f"{v:.2f}" for v in theirs_width[[0, 4, -1]]) + " | "
                     + ", ".join(f"{v:.2f}" for v in ours_at) + " (median unit) |")  # fmt: skip
    above = np.interp(curves["none"][0], *curves["batch"]) > curves["none"][1]
    first = {name: next((int(s) for s, a in curve.T if a >= 0.95), None) for name, curve in curves.items()}
    lines += [
        "",
        f"Steps to 95%: none {first['none']:,}, batch {first['batch']:,}. Batch is more accurate than none at",
        f"{above[1:].sum()} of {len(above) - 1} evaluations after the first. Made by `scripts/bn2015_fig1.py`.",
    ]
    return "\n".join(lines) + "\n"


def picture(curves: dict[str, np.ndarray], units: dict[str, Units]) -> Figure:
    canvas = Figure(figsize=(11, 3.2), layout="constrained")
    a, b, c = canvas.subplots(1, 3)
    for name, color in (("none", "#444444"), ("batch", "#0072B2")):
        a.plot(*curves[name], color=color, label=f"{name}, ours")
        a.plot(STEPS, ACCURACY[name], "x", color=color, label=f"{name}, paper")
    a.set_ylim(0.7, 1)
    a.set_title("(a) accuracy on held-out images")
    a.legend(loc="lower right")
    for ax, name, letter in ((b, "none", "b"), (c, "batch", "c")):
        found = units[name]
        color = "#444444" if name == "none" else "#0072B2"
        for k, line in enumerate(found.bands[found.typical].T):
            ax.plot(found.steps, line, color=color, linewidth=1.6 if k == 1 else 0.9)
            ax.plot(SHARE * found.steps[-1], BANDS[name][k], "x", color=color, markersize=4)
        reach = 1.05 * max(np.abs(u.bands[u.typical]).max() for u in units.values())
        ax.set_ylim(-reach, reach)
        ax.set_title(f"({letter}) {name}: percentiles 15, 50, 85 of one unit's input")
    for ax in (a, b, c):
        ax.set_xlabel("training step (crosses: read off the paper)")
    return canvas


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/bn2015_fig1"))
