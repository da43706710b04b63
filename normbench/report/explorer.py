"""The layer explorer: what the values of each layer do over training, as numbers that the page's script draws.

`templates/explorer.js` draws them; where no script runs, the figure `ribbons` stands in its place.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from normbench.analysis.groups import order, show
from normbench.analysis.measured import rows
from normbench.plots.facets import evenly
from normbench.plots.palette import palette
from normbench.plots.view import OVER, View, has_columns, one_seed

if TYPE_CHECKING:
    import pandas as pd

    from normbench.runs import Run

SNAPSHOTS, LAYERS, UNITS, SCHEMES = 12, 8, 3, 6  # at most; of the schemes: that are shown until more are ticked
MOST = 780_000  # characters of JSON, of which a scheme has 8,000 for each of its layers
LEVELS = [k / 32 for k in range(33)]
# Tables with quantiles: their columns, and which of these the page gets. 17 of 33, closer together in the tails.
SOURCES: dict[str, tuple[list[str], list[float], list[int]]] = {
    "distributions": ([f"q{k:02}" for k in range(33)], LEVELS, [0, 1, 2, 3, 5, 8, 11, 13, 16]),
    "activations": (["p01", "p15", "p50", "p85", "p99"], [0.01, 0.15, 0.5, 0.85, 0.99], [0, 1, 2]),
}
MOVED = ("w1_scaled_mean", "moved_scaled_mean", "drift_scaled_mean")
BEST = "the best of each scheme"
Key = tuple[str, str, str]  # layer, tensor, unit ("" for all units)


@dataclass(frozen=True, eq=False)
class Explorer:
    """What the page needs.

    Args:
        data: for the script.
        options: the settings to choose between, {"batch size": ["4", "64"]}.
        schemes: those with data, and whether they are shown at first.
        units: how many single units of a layer there are.
        seen: a sentence computed from the data, or "".
        notes: sentences on what is left out.
    """

    data: Mapping[str, Any]
    options: Mapping[str, Sequence[str]]
    schemes: Mapping[str, bool]
    units: int
    seen: str
    notes: Sequence[str]

    @property
    def json(self) -> str:
        """Without a character that could end the element it stands in."""
        return json.dumps(self.data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


@dataclass(frozen=True, eq=False)
class Series:
    """What one run has measured at `steps`.

    Args:
        quantiles: [snapshots, levels]. NaN where there is no row, or a number in it is not finite.
        zeros: [snapshots], the share of values that are exactly 0.
        moved: [4, snapshots], by layer and tensor: MOVED since the start, and the w1 between two halves of the images.
    """

    steps: list[float]
    quantiles: dict[Key, np.ndarray]
    zeros: dict[Key, np.ndarray]
    moved: dict[tuple[str, str], np.ndarray]

    @cached_property
    def encoded(self) -> dict[str, Any]:
        """Base64 of little-endian numbers. A series: a scale for each snapshot (32 bits), then for each snapshot the
        share of zeros and the quantiles, as shares of the scale (16 bits).
        """
        series = {}
        for key, q in self.quantiles.items():
            scale = np.abs(q).max(axis=1)
            shares = np.column_stack([self.zeros[key], q / np.where(scale > 0, scale, 1)[:, None]])
            series["|".join(key)] = _base64(scale.astype("<f4"), np.rint(32767 * np.nan_to_num(shares)).astype("<i2"))
        moved = {"|".join(key): _base64(numbers.astype("<f4")) for key, numbers in self.moved.items()}
        return {"steps": self.steps, "series": series, "moved": moved}


@dataclass(frozen=True, eq=False)
class Setting:
    """A run of each scheme, and the values of what was varied, {"batch size": "4", "lr": BEST}."""

    at: dict[str, str]
    runs: pd.DataFrame


def explorer(view: View) -> Explorer | None:
    """One seed of each scheme, in as many settings as have room; None where no run has measured its layers.

    Those come first in which schemes differ most, each scheme at its own best lr; then each lr of the sweep.
    """
    found = list(_settings(view))
    instrument, found = next(((name, kept) for name in SOURCES if (kept := _measured(view, found, name))), ("", []))
    shown: list[Setting] = []
    known: dict[str, Series] = {}
    room = MOST
    most = max(2, min(LAYERS, MOST // (8000 * len(found[0].runs)))) if found else 0  # layers
    for setting in found:
        members = [view.members[str(name)] for name in setting.runs.index]
        steps = sorted({step for run in members for step in rows(run, instrument, "step")["step"].tolist()})
        steps = evenly(steps, SNAPSHOTS)
        new = {run.name: read(run, instrument, steps, most) for run in members if run.name not in known}
        room -= sum(
            len(text) + 40 for one in new.values() for k in ("series", "moved") for text in one.encoded[k].values()
        )
        if room < 0 and shown:
            break
        known |= new
        shown.append(setting)
    if not any(one.quantiles for one in known.values()):
        return None
    names = list(known)
    schemes = order(view.every.loc[names, "scheme"])
    styles = palette(view.groups.schemes)
    columns, levels, chosen = SOURCES[instrument]
    about = view.every.loc[names, ["scheme", "status", "lr", "seed"]]
    data = {
        "levels": [levels[k] for k in _both_ends(chosen, columns)],
        "schemes": [
            {"name": scheme, "color": styles[scheme].color.replace("#000000", "currentColor"),
             "dash": " ".join(f"{length:g}" for length in styles[scheme].line[1]) if styles[scheme].line != "-" else ""}
            for scheme in schemes
        ],
        "settings": [
            {"at": setting.at, "line": view.line(setting.runs), "runs": [names.index(n) for n in setting.runs.index]}
            for setting in shown
        ],
        "runs": [
            {"scheme": schemes.index(row.scheme), "diverged": row.status == "diverged", "lr": show(row.lr),
             "seed": show(row.seed), **known[str(row.Index)].encoded}
            for row in about.itertuples()
        ],
    }  # fmt: skip
    values = {key: list(dict.fromkeys(setting.at[key] for setting in shown)) for key in shown[0].at}
    units = max(len({unit for of, _, unit in one.quantiles if unit and of == layer})
                for one in known.values() for layer, *_ in one.quantiles)  # fmt: skip
    notes = {
        f"Of {len(found)} settings, {len(shown)} are here: those in which schemes differ most.":
            len(shown) < len(found),
        "These runs have five percentiles of each layer; the instrument distributions would supply 33 quantiles.":
            instrument == "activations",
        "Single units were not measured: the option instruments.units supplies them.": not units,
        f"Of networks with more layers, {most} are here.":
            any(len({layer for layer, *_ in one.quantiles}) == most for one in known.values()) and most > 4,
    }  # fmt: skip
    return Explorer(
        data,
        {key: sorted(some, key=_by_size) for key, some in values.items() if len(some) > 1},
        {scheme: place < SCHEMES for place, scheme in enumerate(schemes)},
        units,
        _seen({row.scheme: known[str(row.Index)] for row in shown[0].runs.itertuples()}),
        [words for words, true in notes.items() if true],
    )


def _settings(view: View) -> Iterator[Setting]:
    keys = [key for key in view.groups.varying if key != "lr"]
    over = {"lr": "lr"} if "lr" in view.groups.varying else {}

    def setting(runs: pd.DataFrame, lr: str) -> Setting:
        at = {key.rpartition(".")[2].replace("_", " "): show(runs[key].iloc[0]) for key in keys}
        return Setting(at | dict.fromkeys(over, lr), one_seed(runs))

    best, every = (runs[runs["status"].isin(OVER)] for runs in (view.best, view.every))
    for runs in view.ranked(best):
        yield setting(runs, BEST)
    for runs in view.ranked(every) if over else []:
        for lr, at_lr in runs.groupby("lr"):
            yield setting(at_lr, show(lr))


def _measured(view: View, found: Sequence[Setting], instrument: str) -> list[Setting]:
    """These settings, of each the runs with a table of quantiles."""
    needed = ("step", "layer", "tensor", "bn_mode", "unit", *SOURCES[instrument][0])
    has = {name: has_columns(view.members[str(name)], instrument, needed)
           for setting in found for name in setting.runs.index}  # fmt: skip
    kept = [Setting(s.at, s.runs[[has[name] for name in s.runs.index]]) for s in found]
    return [setting for setting in kept if len(setting.runs)]


def read(run: Run, instrument: str, steps: Sequence[float], most: int) -> Series:
    """A run's numbers at `steps`, of at most so many layers. Units: of layers that are not the output."""
    columns, levels, chosen = SOURCES[instrument]
    table = rows(run, instrument, "step", "unit", *columns)
    table = table[table["bn_mode"] == "probe"]
    layers = evenly(list(dict.fromkeys(table["layer"].dropna())), most) if len(table) else []
    units: dict[str, set[float]] = {layer: set() for layer in layers}
    for layer, unit in zip(table["layer"], table["unit"], strict=True):
        if layer in units and layer != "output" and not math.isnan(unit):
            units[layer].add(unit)
    wanted = {(layer, unit): f"{unit:.0f}" for layer, of in units.items() if of for unit in evenly(sorted(of), UNITS)}
    wanted |= {(layer, -1.0): "" for layer in layers}
    found = _by_key(table.fillna({"unit": -1}), ("layer", "tensor", "unit"), columns, steps)
    kept = {(layer, tensor, wanted[layer, unit]): values for (layer, tensor, unit), values in found.items()
            if (layer, unit) in wanted and np.isfinite(values).all(axis=1).any()}  # fmt: skip
    for values in kept.values():
        values[~np.isfinite(values).all(axis=1)] = np.nan
    ends = _both_ends(chosen, columns)
    zeros = {key: share_of_zeros(values, np.array(levels)) for key, values in kept.items()}
    return Series(list(steps), {key: values[:, ends] for key, values in kept.items()}, zeros, _moved(run, steps, kept))


def _moved(run: Run, steps: Sequence[float], kept: Mapping[Key, Any]) -> dict[tuple[str, str], np.ndarray]:
    table = rows(run, "shift", "step", *MOVED)
    if not {"bn_mode", "since"} <= set(table.columns):
        return {}
    found = _by_key(table[table["bn_mode"] == "probe"], ("layer", "tensor", "since"), MOVED, steps)
    moved = {}
    for layer, tensor, _ in (key for key in kept if key[2] == ""):
        missing = np.full((len(steps), len(MOVED)), np.nan)
        start, halves = (found.get((layer, tensor, since), missing) for since in ("start", "halves"))
        numbers = np.vstack([start.T, halves[:, :1].T])
        numbers[:3, 0] = np.where(np.isfinite(numbers[:3]).any(axis=1), 0, np.nan)
        if np.isfinite(numbers).any():
            moved[layer, tensor] = numbers
    return moved


def _by_key(
    table: pd.DataFrame, keys: Sequence[str], columns: Sequence[str], steps: Sequence[float]
) -> dict[Any, np.ndarray]:
    """Values of the key columns -> [steps, columns], NaN without a row. Of two rows for one place the last counts."""
    place = {step: i for i, step in enumerate(steps)}
    found: dict[Any, np.ndarray] = {}
    numbers = table[list(columns)].to_numpy(dtype=float)
    for *key, step, row in zip(*(table[k].tolist() for k in (*keys, "step")), numbers, strict=True):
        if step in place:
            found.setdefault(tuple(key), np.full((len(steps), len(columns)), np.nan))[place[step]] = row
    return found


def share_of_zeros(quantiles: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Of each row of quantiles [..., levels], the share of values that are exactly 0: the middle of what is possible.

    If the quantiles from levels i to j are 0 and no others, it lies between j - i and the distance of i - 1 and j + 1.
    """
    zero = quantiles == 0
    first, last = zero.argmax(1), zero.shape[1] - 1 - zero[:, ::-1].argmax(1)
    within = levels[last] - levels[first]
    around = levels[np.minimum(last + 1, len(levels) - 1)] - levels[np.maximum(first - 1, 0)]
    return np.where(zero.sum(1) > 1, (within + around) / 2, 0.0)


def _seen(first: Mapping[str, Series]) -> str:
    """What one sees: how far the last hidden layer moves with each scheme."""
    layers = [layer for one in first.values() for layer, _ in one.moved if layer != "output"]
    if not layers:
        return ""
    layer, words, noise = layers[-1], [], []
    for scheme, one in list(first.items())[:SCHEMES]:
        entering = next((t for t in ("normalized", "linear") if (layer, t) in one.moved), "")
        numbers = one.moved.get((layer, entering), np.full((4, 1), np.nan))
        if np.isfinite(numbers[0]).any():
            words.append(f"{scheme} {numbers[0][np.isfinite(numbers[0])][-1]:.2g}")
            noise += [value for value in numbers[3][-1:] if np.isfinite(value)]
    if not words:
        return ""
    floor = f"; another choice of images moves it by {np.mean(noise):.2g}" if noise else ""
    entered = f"From start to end, what enters the activation of {layer} moves, in s.d. of a unit"
    return f"{entered}: {', '.join(words)}{floor}."


def _both_ends(chosen: Sequence[int], columns: Sequence[str]) -> list[int]:
    """[0, 1, 2] of five columns -> [0, 1, 2, 3, 4]: the upper levels mirror the lower ones."""
    return sorted({*chosen, *(len(columns) - 1 - k for k in chosen)})


def _base64(*parts: np.ndarray) -> str:
    return base64.b64encode(b"".join(part.tobytes() for part in parts)).decode()


def _by_size(text: str) -> tuple[int, float, str]:
    """The best lr first, then numbers by size, then words."""
    try:
        return (0 if text == BEST else 1), float("-inf" if text == BEST else text), ""
    except ValueError:
        return 2, 0.0, text
