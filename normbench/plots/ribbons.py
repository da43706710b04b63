"""Percentile ribbons per layer over training: the figure of Ioffe & Szegedy 2015 (arXiv 1502.03167, fig. 1b-c)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from normbench.analysis.groups import Group, Groups, Setting, label, order
from normbench.analysis.measured import mean_validation_accuracy, rows
from normbench.plots.by_layer import entering, evenly
from normbench.plots.drawing import Figure, finish, omitted, panels
from normbench.plots.palette import palette
from normbench.runs import Run

NAME, TITLE = "ribbons", "Distribution of each layer over training"
PERCENTILES = ["p01", "p15", "p50", "p85", "p99"]
SCHEMES, LAYERS, FIGURES = 8, 5, 3
BAND, FEWEST = ["p15", "p50", "p85"], 5  # of single units: their percentiles, and how many must be tracked


@dataclass(frozen=True)
class Ribbon:
    """One panel: `values` has a row per snapshot and a column per percentile."""

    steps: np.ndarray
    values: np.ndarray
    tensor: str

    @property
    def reach(self) -> float:
        finite = self.values[np.isfinite(self.values)]
        return float(np.abs(finite).max()) if len(finite) else 0.0


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


def draw(groups: Groups) -> list[Figure]:
    """One figure per model: of its settings where the most schemes were measured, the best on average."""
    by_model: dict[str, list[Setting]] = defaultdict(list)
    for setting, by_scheme in groups.settings.items():
        by_model[next(iter(by_scheme.values())).members[0].values["model"]].append(setting)
    figures = []
    for model in list(by_model)[:FIGURES]:
        setting = most_telling(groups, by_model[model])
        figures += _draw(groups, setting, NAME if len(by_model) == 1 else re.sub(r"\W", "_", f"{NAME}_{model}"))
    missing = "Not drawn: no finished run has percentiles of its layers. The instrument activations supplies them."
    return [*figures, *_draw_typical_units(groups)] if figures else [Figure(NAME, TITLE, missing)]


def _draw_typical_units(groups: Groups) -> list[Figure]:
    """Ioffe & Szegedy's own figure: one unit per scheme. None where `instruments.units` was 0, or below `FEWEST`."""
    setting = most_telling(groups, list(groups.settings))
    found = {s: u for s, e in one_seed(list(groups.settings[setting].values())).items() if (u := tracked_units(e))}
    tracked = {scheme: found[scheme] for scheme in order(found) if len(found[scheme].names) >= FEWEST}
    schemes = list(tracked)[:LAYERS]
    if not schemes:
        return []
    styles = palette(groups.schemes)
    canvas, axes = panels(1, len(schemes), max(2.4, 11 / len(schemes)), 3.0, sharey=True)
    reach = max(float(np.abs(tracked[scheme].bands[tracked[scheme].typical]).max()) for scheme in schemes)
    parts = [
        "One run per scheme. Percentiles 15, 50 and 85, over the probe's images, of what enters the activation of one",
        "unit of the last hidden layer: the unit whose median moves as far as half of the others' do.",
    ]
    for ax, scheme in zip(axes[0], schemes, strict=True):
        units = tracked[scheme]
        _draw_unit(ax, units, styles[scheme].color)
        ax.set_title(f"{scheme}: unit {units.names[units.typical]} of {units.layer}, {units.tensor}")
        ax.set_ylim(-1.05 * reach, 1.05 * reach)
        low, middle, high = np.quantile(units.excursion, [0, 0.5, 1])
        relative = np.nanmedian(units.relative) if np.isfinite(units.relative).any() else np.nan
        parts.append(
            f"{scheme}: {len(units.names)} units, the highest median minus the lowest is {middle:.2f} for half of them"
            f" (from {low:.2f} to {high:.2f}), {relative:.2f} of the band's width."
        )
    caption = " ".join([*parts, omitted(LAYERS, tracked, "schemes")]).strip()
    return [finish(f"{NAME}_unit", "The input of one typical unit over training", caption, canvas, groups.synthetic)]


def _draw(groups: Groups, setting: Setting, name: str) -> list[Figure]:
    chosen = one_seed(list(groups.settings[setting].values()))
    measured = {scheme: found for scheme, run in chosen.items() if (found := _ribbons(run))}
    if not measured:
        return []
    schemes = order(measured)[:SCHEMES]
    every = max((list(measured[scheme]) for scheme in schemes), key=len)
    layers = evenly(every, LAYERS)
    across = len(layers) <= 2 < len(schemes)  # few layers: lay the schemes out from left to right
    shape = (len(layers), len(schemes)) if across else (len(schemes), len(layers))
    width = min(5.0, 11 / shape[1])
    canvas, axes = panels(*shape, width, 1.75 if shape[0] > 1 else 2.6, sharex=True, sharey="row" if across else "col")
    styles = palette(groups.schemes)
    cut = False
    for j, layer in enumerate(layers):
        row = [axes[j][i] if across else axes[i][j] for i in range(len(schemes))]
        ribbons = [measured[scheme].get(layer) for scheme in schemes]
        limit = _limit([ribbon.reach for ribbon in ribbons if ribbon])
        for ax, scheme, ribbon in zip(row, schemes, ribbons, strict=True):
            cut |= _draw_panel(ax, ribbon, styles[scheme].color, limit)
        row[0].set_ylim(-limit, limit)
        row[0].yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    for j, layer in enumerate(layers):
        (axes[j][0].set_ylabel if across else axes[0][j].set_title)(layer)
    for i, scheme in enumerate(schemes):
        (axes[0][i].set_title if across else axes[i][0].set_ylabel)(scheme, fontweight="bold")
    step_axis(axes[0][0], max(int(r.steps.max()) for s in schemes for r in measured[s].values()))
    canvas.supxlabel("training step", fontsize=9)
    title = TITLE if not setting else f"{TITLE}: {label(setting)}"
    return [finish(name, title, _caption(chosen, measured, schemes, layers, every, cut), canvas, groups.synthetic)]


def tracked_units(run: Run) -> Units | None:
    """The units that were tracked in the last layer before the output; of their non-linearity's input."""
    table = rows(run, "activations", "step", *BAND)
    if not {"bn_mode", "unit"} <= set(table.columns):
        return None
    table = table[table.unit.notna() & (table.bn_mode == "probe") & table.tensor.isin(["normalized", "linear"])]
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


def _caption(
    chosen: dict[str, Run],
    measured: dict[str, dict[str, Ribbon]],
    schemes: Sequence[str],
    layers: Sequence[str],
    every: Sequence[str],
    cut: bool,
) -> str:
    settings = chosen[schemes[0]].values
    seeds = {scheme: chosen[scheme].seed for scheme in schemes}
    which = {f"seed {seed}" if len(set(seeds.values())) == 1 else f"{s} seed {seed}": None for s, seed in seeds.items()}
    linear = {(s, layer) for s in schemes for layer, ribbon in measured[s].items() if ribbon.tensor == "linear"}
    plain = [scheme for scheme in schemes if all((scheme, layer) in linear for layer in measured[scheme])]
    plain += [layer for layer in layers if any((s, layer) in linear for s in schemes if s not in plain)]
    lost = [scheme for scheme in chosen if scheme not in measured]
    diverged = [scheme for scheme in schemes if chosen[scheme].status == "diverged"]
    parts = [
        f"One run per scheme ({settings['model']}, batch size {settings.get('batch_size')}, {', '.join(which)}).",
        "Percentiles 1, 15, 50, 85 and 99 over all units and images of a fixed set of validation images:",
        "line = median, dark band = 15 to 85, light band = 1 to 99. Tensor: normalized, the output of the norm"
        + (f" (where there is none, linear, the output of the linear layer: {', '.join(plain)})." if plain else "."),
        "Bands that stay where they are mean that the next layer sees a steady distribution. The step axis is",
        "logarithmic from step 1 on. All schemes share the vertical axis of a layer"
        + (
            "; a scheme that reaches over five times as far as the median one is cut there, its range written."
            if cut
            else "."
        ),
        "Networks with batch norm are measured with the statistics of these images, not the running ones.",
        f"Diverged: {', '.join(diverged)}." if diverged else "",
        f"Not measured: {', '.join(lost)} (the instrument activations supplies this)." if lost else "",
        omitted(LAYERS, every, "layers"),
        omitted(SCHEMES, measured, "schemes"),
    ]
    return " ".join(filter(None, parts))


def most_telling(groups: Groups, settings: Sequence[Setting]) -> Setting:
    """As `measured.choose`, but a diverged run counts too: here each is drawn by itself, not averaged."""

    def rank(setting: Setting) -> tuple[int, float]:
        by_scheme = groups.settings[setting]
        accuracy = mean_validation_accuracy(by_scheme)
        return sum(any(map(has_layers, group.members)) for group in by_scheme.values()), accuracy

    return max(settings, key=rank)


def has_layers(run: Run) -> bool:
    path = run.folder / "measured" / "activations.csv"
    return run.status in ("complete", "diverged") and path.exists() and path.stat().st_size > 0


def one_seed(groups: Sequence[Group]) -> dict[str, Run]:
    """A finished run of each scheme, of the seed that most schemes share; the first of its own where it lacks that."""
    finished = {c.scheme: found for c in groups if (found := [e for e in c.members if has_layers(e)])}
    seeds = [run.seed for members in finished.values() for run in members]
    common = max(dict.fromkeys(seeds), key=seeds.count, default=None)
    return {s: next((e for e in members if e.seed == common), members[0]) for s, members in finished.items()}


def _ribbons(run: Run) -> dict[str, Ribbon]:
    """Layer -> its ribbon, in network order; `linear` where a layer has no `normalized` rows, the two being equal."""
    table = rows(run, "activations", "step", *PERCENTILES)
    if not {"bn_mode", "unit"} <= set(table.columns):
        return {}
    result = {}
    for layer, part in entering(table[(table.bn_mode == "probe") & table.unit.isna()]).groupby("layer", sort=False):
        part = part.sort_values("step", kind="stable")
        values = part[PERCENTILES].to_numpy(dtype=float)
        if np.isfinite(values).any():
            result[str(layer)] = Ribbon(part.step.to_numpy(dtype=float), values, str(part.tensor.iloc[0]))
    return result


def _limit(reaches: Sequence[float]) -> float:
    """Half the height of a shared axis: the furthest reach, but five times the median at most: none flattens all."""
    if not any(reaches):
        return 1.0
    return 1.05 * min(max(reaches), 5 * float(np.median(reaches)) or max(reaches))


def _draw_panel(ax: Axes, ribbon: Ribbon | None, color: str, limit: float) -> bool:
    """Says whether the ribbon leaves the panel."""
    ax.grid(visible=False, axis="x")
    if ribbon is None:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", color="#777777")
        return False
    p01, p15, p50, p85, p99 = ribbon.values.T
    ax.fill_between(ribbon.steps, p01, p99, color=color, alpha=0.18, linewidth=0)
    ax.fill_between(ribbon.steps, p15, p85, color=color, alpha=0.35, linewidth=0)
    ax.plot(ribbon.steps, p50, color=color, linewidth=1.2)
    if ribbon.reach <= limit:
        return False
    text = f"{np.nanmin(ribbon.values):.3g} to {np.nanmax(ribbon.values):.3g}"
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    ax.text(0.03, 0.95, text, transform=ax.transAxes, ha="left", va="top", fontsize=7.5, bbox=box)
    return True


def step_axis(ax: Axes, last: int) -> None:
    """0, 1, 10, 100 ...: step 0 has a place, and the first steps are as wide as the last."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xlim(0, max(last, 1))
    ax.xaxis.set_major_locator(FixedLocator([0, *(10.0**k for k in range(len(str(last))))]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
