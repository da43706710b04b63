"""The input of one typical unit over training, and how far all of them wander: Ioffe & Szegedy 2015, figure 1b-c."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cell, Cells, order
from normbench.analysis.measured import rows
from normbench.plots.drawing import Figure, finish, omitted, panels, plain_ticks
from normbench.plots.palette import Style, palette
from normbench.plots.ribbons import most_telling, one_seed

NAME, TITLE = "unit_bands", "The input of one typical unit, and how far all units wander"
SCHEMES, FEWEST = 5, 5
BAND = ["p15", "p50", "p85"]


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


def draw(cells: Cells) -> list[Figure]:
    """The setting that `ribbons` shows: all runs of a study have rows of single units, or none."""
    best = _tracked(list(cells.settings[most_telling(cells, list(cells.settings))].values()))
    if not best:
        missing = f"Not drawn: no run has rows of {FEWEST} or more single units. Option instruments.units gives them."
        return [Figure(NAME, TITLE, missing)]
    schemes = order(best)[:SCHEMES]
    styles = palette(cells.schemes)
    canvas, axes = panels(1, len(schemes) + 1, max(2.4, 11 / (len(schemes) + 1)), 3.0)
    row = axes[0]
    reach = max(np.abs(best[scheme][1].bands[best[scheme][1].typical]).max() for scheme in schemes)
    for ax, scheme in zip(row, schemes, strict=False):
        _draw_unit(ax, best[scheme][1], styles[scheme].color)
        ax.set_title(f"{scheme}: unit {best[scheme][1].names[best[scheme][1].typical]}")
        ax.set_ylim(-1.05 * reach, 1.05 * reach)
    row[0].set_ylabel("input of the unit's activation")
    _draw_excursions(row[-1], {scheme: best[scheme][1] for scheme in schemes}, styles)
    caption = _caption({scheme: best[scheme] for scheme in schemes})
    return [finish(NAME, TITLE, f"{caption} {omitted(SCHEMES, best, 'schemes')}".strip(), canvas, cells.synthetic)]


def _tracked(cells: list[Cell]) -> dict[str, tuple[Entry, Units]]:
    found = {scheme: (entry, units) for scheme, entry in one_seed(cells).items() if (units := tracked_units(entry))}
    return {scheme: pair for scheme, pair in found.items() if len(pair[1].names) >= FEWEST}


def tracked_units(entry: Entry) -> Units | None:
    """The units that were tracked in the last layer before the output; of their non-linearity's input."""
    table = rows(entry, "activations", "step", *BAND)
    if not {"way", "unit"} <= set(table.columns):
        return None
    table = table[table.unit.notna() & (table.way == "probe") & table.tensor.isin(["normalized", "linear"])]
    layers = [layer for layer in dict.fromkeys(table.layer) if layer != "output"]
    if not layers:
        return None
    table = table[table.layer == layers[-1]]
    tensor = "normalized" if (table.tensor == "normalized").any() else "linear"
    table = table[table.tensor == tensor].astype({"unit": int})
    wide = [table.pivot_table(index="unit", columns="step", values=name) for name in BAND]
    bands = np.stack([part.to_numpy(dtype=float) for part in wide], axis=2)
    if not np.isfinite(bands).all():
        return None
    return Units(layers[-1], tensor, wide[0].columns.to_numpy(dtype=float), bands, list(wide[0].index))


def _draw_unit(ax: Axes, units: Units, color: str) -> None:
    p15, p50, p85 = units.bands[units.typical].T
    ax.fill_between(units.steps, p15, p85, color=color, alpha=0.25, linewidth=0)
    for line, width in ((p15, 0.8), (p50, 1.6), (p85, 0.8)):
        ax.plot(units.steps, line, color=color, linewidth=width)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("training step")


def _draw_excursions(ax: Axes, units: dict[str, Units], styles: dict[str, Style]) -> None:
    for scheme, found in units.items():
        values = np.sort(found.excursion)
        share = np.arange(1, len(values) + 1) / len(values)
        style = styles[scheme]
        ax.step(values, share, where="post", color=style.color, linestyle=style.line, label=scheme)
    if all((found.excursion > 0).all() for found in units.values()):
        ax.set_xscale("log")
        plain_ticks(ax.xaxis)
    ax.set_xlabel("excursion of a unit's median")
    ax.set_ylabel("share of units below")
    ax.set_ylim(0, 1)
    ax.set_title("all tracked units")
    ax.legend(loc="lower right")


def _caption(drawn: dict[str, tuple[Entry, Units]]) -> str:
    first = next(iter(drawn.values()))[1]
    tensors = {units.tensor for _, units in drawn.values()}
    parts = [
        f"Layer {first.layer}, one run per scheme. Left: percentiles 15, 50 and 85 over the probe's images of what",
        f"enters one unit's activation ({' or '.join(sorted(tensors))}), the unit whose median wanders as far as",
        "half of the others' do. Right: for every tracked unit, the highest median minus the lowest of all snapshots.",
    ]
    for scheme, (_, units) in drawn.items():
        low, middle, high = np.quantile(units.excursion, [0, 0.5, 1])
        relative = np.nanmedian(units.relative) if np.isfinite(units.relative).any() else np.nan
        parts.append(
            f"{scheme}: {len(units.names)} units, excursion {middle:.2f} (from {low:.2f} to {high:.2f}),"
            f" {relative:.2f} of the band's width."
        )
    return " ".join(parts)
