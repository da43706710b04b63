"""Made-up studies whose truth is known, through all of analysis, a claim and the printed answer, many times.

A study is false if one of its printed sentences is: "better", "worse" or "equivalent" of schemes that are not so, a
shortlist or a recommendation that misses the best scheme, or a verdict on a claim that is not true. Each of these kinds
is held to 5% by itself; at a border of several of them at once their errors add up (`BORDERS`). The truth is the
mean accuracy over all seeds at the lrs that the study has chosen, a diverged run at chance. Apart from that it counts
the intervals that cover the truth: of the differences from the reference, and of the accuracy and the gain of the
scheme that the answer puts first. They are pointwise where fresh seeds (or one lr) gave them, and simultaneous where
the same seeds have chosen.

    python -m tests.analysis.simulator 2000
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normbench.analysis.answer import answer
from normbench.analysis.best_lr import candidates, choices, compare_at_best_lr
from normbench.analysis.groups import Group, Groups, order
from normbench.claims.claim import Claim
from normbench.claims.verdicts import judge
from normbench.runs import SCHEMA_VERSION, Run, Study

MARGIN, CHANCE, CLASSES = 0.005, 0.1, 10
KINDS = ("shortlist", "different", "equivalent", "claim")  # of false statements
FIRST_FRESH = 10  # the first seed of a confirmation
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
Cell = tuple[str, float]  # scheme, lr
CLAIM = Claim.model_validate({
    "id": "better", "digest": "", "order": 1, "topic": "robustness", "as_stated": "Batch is better.",
    "source": "this file", "study": "made_up", "checks": [
        {"metric": {"accuracy": "test"}, "of": {"norm": "batch"}, "against": {"norm": "none"}, "expect": "higher",
         "margin": MARGIN},
    ],
})  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """What is true of a study.

    Args:
        means: accuracy of each scheme at its best lr.
        grids: lrs of each scheme, in steps from that of the best (0). One lr: none is chosen.
        step: what a step costs.
        flat: so many steps on each side of the best cost nothing, by scheme.
        seeds: of each scheme; with `fresh` those that select.
        fresh: seeds of a further round at the best lr, of the reference and of all schemes that are not separated from
            the best by a paired t test of validation accuracies.
        noise: of a run, besides what all schemes share for a seed; with standard deviation 1.
        sd: of that noise.
        draw_sd: of what all seeds of a scheme share, because they are trained on one draw of the data.
        diverges: the share of diverged runs of each scheme.
    """

    means: Mapping[str, float]
    grids: Mapping[str, tuple[float, ...]]
    step: float = 0.01
    flat: Mapping[str, float] = field(default_factory=dict)
    seeds: int = 5
    fresh: int = 0
    noise: Draw = lambda rng, shape: rng.normal(size=shape)
    sd: float = 0.004
    draw_sd: float = 0.0
    diverges: Mapping[str, float] = field(default_factory=dict)


EQUAL = {"none": 0.92, "batch": 0.92, "layer": 0.92, "weight": 0.92}
MANY = (
    *("none", "batch", "layer", "weight", "weight_mean_only", "selu", "group", "instance", "rms", "batch_renorm"),
    *("mean_only", "noisy_batch", "ghost_batch", "layer2d", "weight_standardization", "dynamic_tanh"),
)
ONE, THREE, FIVE = (dict.fromkeys(EQUAL, steps) for steps in ((0,), (-1, 0, 1), (-2, -1, 0, 1, 2)))
FOUR, SIX = (dict.fromkeys(MANY, steps) for steps in ((-1.5, -0.5, 0.5, 1.5), (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)))
SPREAD = {scheme: 0.955 - 0.0015 * i for i, scheme in enumerate(("batch", *(name for name in MANY if name != "batch")))}
BORDERS = {
    "equal but for nothing": Scenario({scheme: 0.92 + 1e-6 * i for i, scheme in enumerate(EQUAL)}, ONE),
    "at the margin": Scenario(EQUAL | {"batch": 0.92 + MARGIN, "layer": 0.92 - MARGIN}, ONE, sd=0.002),
}
SCENARIOS = BORDERS | {
    "all equal": Scenario(EQUAL, ONE),
    "one better": Scenario(EQUAL | {"batch": 0.93}, ONE),
    "close": Scenario({scheme: 0.92 + 1e-3 * i for i, scheme in enumerate(EQUAL)}, ONE),
    "diverging": Scenario(EQUAL | {"batch": 0.93}, ONE, diverges={"batch": 0.6}),
    "own best lr": Scenario(EQUAL, THREE),
    "unequal grids": Scenario(EQUAL, {**THREE, "batch": (-2, -1, 0, 1, 2)}),
    "unequal grids, flat": Scenario(EQUAL, {**ONE, "batch": (-3, -2, -1, 0, 1, 2, 3)}, flat={"batch": 2}),
    "flat and peaked": Scenario(EQUAL, FIVE, flat={"batch": 1}),
    "few seeds": Scenario(EQUAL, THREE, seeds=3),
    "heavy tails": Scenario(EQUAL, ONE, noise=lambda rng, shape: rng.standard_t(3, shape) / 3**0.5),
    "a shared draw of the data": Scenario(EQUAL, ONE, draw_sd=0.004),
    "a draw of the data per seed": Scenario(EQUAL | {"layer": 0.93}, ONE, sd=0.01),
    "60 equal cells": Scenario(dict.fromkeys(MANY[:15], 0.92), SIX, flat=dict.fromkeys(MANY, 1.5)),
    "search and confirmation": Scenario(SPREAD, FOUR, seeds=3, fresh=10, flat=dict.fromkeys(MANY, 0.5)),
    "confirmation of equals": Scenario(
        dict.fromkeys(MANY, 0.92), FOUR, seeds=3, fresh=10, flat=dict.fromkeys(MANY, 0.5)
    ),
}


def made_up(scenario: Scenario, rng: np.random.Generator) -> tuple[Groups, dict[Cell, float], dict[Cell, float]]:
    """A study; the true mean accuracy by scheme and lr on its draw of the data; and that over all draws."""
    cells: dict[Cell, list[Any]] = {}
    truth, over_draws = {}, {}

    def add(scheme: str, lrs: np.ndarray, means: np.ndarray, seeds: range) -> None:
        noise = scenario.sd * scenario.noise(rng, (len(means), len(seeds)))
        test = np.minimum(means[:, None] + shared[seeds.start : seeds.stop] + noise, 1.0)
        validation = np.minimum(test + rng.normal(0, 0.002, test.shape), 1.0)
        lost = rng.random(test.shape) < scenario.diverges.get(scheme, 0.0)
        for lr, *of_lr in zip(lrs.tolist(), test.tolist(), validation.tolist(), lost.tolist(), strict=True):
            found = [(seed, None) if gone else (seed, (a, b)) for seed, a, b, gone in zip(seeds, *of_lr, strict=True)]
            cells.setdefault((scheme, lr), []).extend(found)

    shared = rng.normal(0, 0.003, FIRST_FRESH + scenario.fresh)  # the same for all schemes: pairs are correlated
    for scheme, steps in scenario.grids.items():
        if scheme in scenario.means:
            beyond = np.maximum(0, np.abs(steps) - scenario.flat.get(scheme, 0))
            lrs, means = 0.1 * 3.0 ** np.array(steps), scenario.means[scheme] - scenario.step * beyond
            draw, rate = rng.normal(0, scenario.draw_sd), scenario.diverges.get(scheme, 0.0)
            for lr, mean in zip(lrs.tolist(), means.tolist(), strict=True):
                over_draws[scheme, lr] = (1 - rate) * mean + rate * CHANCE
                truth[scheme, lr] = over_draws[scheme, lr] + (1 - rate) * draw
            add(scheme, lrs, means + draw, range(scenario.seeds))
    groups = as_groups(cells, scenario)
    if scenario.fresh:
        for scheme, lr in to_confirm(groups):
            add(scheme, np.array([lr]), np.array([truth[scheme, lr]]), range(FIRST_FRESH, FIRST_FRESH + scenario.fresh))
        groups = as_groups(cells, scenario)
    return groups, truth, over_draws


def to_confirm(groups: Groups) -> list[Cell]:
    """At their best lrs: the reference and the schemes that may be the best."""
    [by_scheme] = choices(groups).values()
    kept = [scheme for scheme in by_scheme if scheme in ("none", *candidates(by_scheme))]
    return [(scheme, float(by_scheme[scheme].lr or 0.0)) for scheme in kept]


def as_groups(cells: Mapping[Cell, list[Any]], scenario: Scenario) -> Groups:
    """What `analysis.read` makes of these runs, without its detour over files and columns, which is slow."""
    members, columns = [], defaultdict[str, list[Any]](list)
    for (scheme, lr), runs in cells.items():
        for seed, found in runs:
            run = _run(scheme, lr, seed, scenario.draw_sd > 0)
            test, validation = found or (None, None)
            result = {"status": "complete" if found else "diverged", "test_accuracy": test}
            result["validation_accuracy"] = validation
            run.__dict__["summary"] = result | {"steps": 100, "samples": 6400, "dataset": {"classes": CLASSES}}
            for key, value in {"run": run.name, "seed": seed, "dataset.classes": CLASSES, **result}.items():
                columns[key].append(value)
            members.append(run)
    frame = pd.DataFrame(columns)
    frame.index = pd.Index(frame.pop("run"), name=None)
    varying = ("lr",) if len({lr for _, lr in cells}) > 1 else ()
    schemes = order(scheme for scheme, _ in cells)
    settings: dict[Any, dict[str, Group]] = {}
    position = 0
    places = {}
    for cell, runs in cells.items():
        places[cell] = slice(position, position := position + len(runs))
    for scheme, lr in sorted(cells, key=lambda cell: (cell[1], schemes.index(cell[0]))):
        setting, place = tuple((key, lr) for key in varying), places[scheme, lr]
        group = Group(scheme, setting, frame.iloc[place], tuple(members[place]))
        settings.setdefault(setting, {})[scheme] = group
    configured = {run.name: run.values for run in members}
    return Groups(Path("made_up"), frame, tuple(members), settings, tuple(schemes), varying, {}, configured)


@lru_cache(maxsize=10_000)
def _run(norm: str, lr: float, seed: int, one_draw: bool) -> Run:
    chosen = {"norm": norm, "model": "mlp", "dataset": "mnist"}
    config: dict[str, Any] = {**{group: {"name": name} for group, name in chosen.items()}, "lr": lr, "seed": seed}
    if one_draw:
        config["dataset"] |= {"train_fraction": 0.1, "draw_seed": 0}
    run = Run(Path(f"{norm}-{lr:g}-{seed:02}"))
    run.__dict__["record"] = {"schema_version": SCHEMA_VERSION, "choices": chosen, "config": config}
    run.tables["statistics"] = pd.DataFrame()  # no instrument has measured
    return run


def as_study(groups: Groups) -> Study:
    return Study(Path("made_up"), tuple(sorted(groups.members, key=lambda run: run.name)))


def examine(scenario: Scenario, rng: np.random.Generator) -> dict[str, Any]:
    """One study: its false sentences, and how many of its intervals cover the truth."""
    groups, truth, over_draws = made_up(scenario, rng)
    [by_scheme] = choices(groups).values()
    sentences = answer(groups)
    assumed = any(words.startswith("All seeds share one draw") for words in sentences)
    known = truth if assumed else over_draws
    true = {scheme: known[scheme, choice.lr] for scheme, choice in by_scheme.items() if choice.lr is not None}
    verdict = judge(CLAIM, groups, {}).answers[0].verdict
    false = set[str]().union(*(false_statements(words, true) for words in sentences))
    gain = true["batch"] - true["none"]
    right = {"supported": gain >= MARGIN, "contradicted": gain < MARGIN, "true but small": 0 < gain < MARGIN}
    false |= set() if right.get(verdict, True) else {"claim"}
    covered: dict[bool, list[bool]] = {True: [], False: []}  # by whether the interval is pointwise
    for row in compare_at_best_lr(groups, "none", MARGIN):
        if row["low"] is not None:
            covered[row["tried"] == 1].append(row["low"] <= true[row["scheme"]] - true["none"] <= row["high"])
    for words in sentences:
        for value, low, high, pointwise in named(words, true):
            covered[pointwise].append(low - 5e-5 <= value <= high + 5e-5)  # what is printed is rounded
    counts = {name: (sum(covered[key]), len(covered[key])) for key, name in ((True, "pointwise"), (False, "together"))}
    return {"false": bool(false)} | {kind: kind in false for kind in KINDS} | counts


def named(words: str, true: Mapping[str, float]) -> list[tuple[float, float, float, bool]]:
    """The printed intervals of the scheme that a recommendation puts first: truth, low, high, and if pointwise."""
    found = re.search(
        r"(\w+), [0-9.]+% test accuracy \(95% interval ([0-9.]+) to ([0-9.]+), \d+ (fresh )?seeds\)", words
    )
    if not found:
        return []
    pointwise = "These intervals hold for all" not in words
    intervals = [(true[found[1]], float(found[2]) / 100, float(found[3]) / 100, pointwise)]
    if gain := re.search(r"points \(([-+0-9.]+) to ([-+0-9.]+)\) against none", words):
        intervals.append((true[found[1]] - true["none"], float(gain[1]) / 100, float(gain[2]) / 100, pointwise))
    return intervals


def false_statements(words: str, true: Mapping[str, float]) -> set[str]:
    """What a sentence of the answer says that is not true, of "shortlist", "different" and "equivalent"."""
    gain = {scheme: round(mean - true["none"], 12) for scheme, mean in true.items()}
    if found := re.match(r"Better than none[^:]*: (.*)", words):
        return set() if all(gain[name] > 0 for name in _names(found[1], true)) else {"different"}
    if found := re.match(r"(?:Recommended|Cannot be told apart)[^:]*: (.*?)(?:, [0-9.]+% test| \(with 95%)", words):
        left_out = re.search(r"Not run on fresh seeds: (.*?) \([0-9]", words)
        compared = set(true) - set(left_out[1].split(", ") if left_out else ())
        compared -= set(re.findall(r"(\w+): the best lr lies at the edge", words))
        best = max(true[scheme] for scheme in compared)
        return set() if any(round(true[name] - best, 12) >= 0 for name in _names(found[1], true)) else {"shortlist"}
    worse = re.search(r"\d+ worse \(([^)]*)\)", words)
    equivalent = re.search(r"\d+ equivalent within [0-9.]+ points \(([^)]*)\)", words)
    false = {"different"} if worse and any(gain[name] >= 0 for name in _names(worse[1], true)) else set()
    wrong = equivalent and any(abs(gain[name]) >= MARGIN for name in _names(equivalent[1], true))
    return false | {"equivalent"} if wrong else false


def _names(words: str, true: Iterable[str]) -> list[str]:
    """The schemes that are named as such: at the start, or after a comma, a colon or a semicolon."""
    return [name for name in true if re.search(rf"(^|[,;:] ){name}\b", words)]


def simulate(scenario: Scenario, studies: int, seed: int = 0) -> pd.Series:
    """The share of false studies, and of pointwise and simultaneous intervals that cover the truth."""
    found = [examine(scenario, np.random.default_rng((seed, i))) for i in range(studies)]
    result = {"studies": studies} | {key: sum(one[key] for one in found) / studies for key in ("false", *KINDS)}
    for kind in ("pointwise", "together"):
        covered, count = (sum(one[kind][i] for one in found) for i in (0, 1))
        result |= {kind: covered / count if count else np.nan, f"{kind} n": count}
    return pd.Series(result)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    only = sys.argv[2:] or list(SCENARIOS)
    print(pd.DataFrame({name: simulate(SCENARIOS[name], count) for name in only}).T.to_string())
