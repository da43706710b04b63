"""Made-up studies whose truth is known, through all of analysis, a claim and the printed answer, many times.

A study is false if one of its printed sentences is: "better", "worse" or "equivalent" of schemes that are not so, a
recommendation whose shortlist misses the best scheme, or a verdict on a claim that is not true. The truth is the mean
accuracy over all seeds at the lrs that the study has chosen, a diverged run at chance.

    python -m tests.analysis.simulator 2000
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normbench.analysis.answer import answer
from normbench.analysis.best_lr import choices, compare_at_best_lr
from normbench.analysis.groups import read
from normbench.analysis.tables import records
from normbench.claims.claim import Claim
from normbench.claims.verdicts import judge
from normbench.runs import SCHEMA_VERSION, Run, Study

MARGIN, CHANCE = 0.005, 0.1
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
CLAIM = Claim.model_validate({
    "id": "better", "title": "batch is better", "digest": "", "order": 1, "as_stated": "Batch is better.",
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
        step: what a step costs; 0: the lr does not matter.
        seeds: of each scheme.
        noise: of a run, besides what all schemes share for a seed; with standard deviation 1.
        sd: of that noise.
        diverges: the share of diverged runs of each scheme.
    """

    means: dict[str, float]
    grids: dict[str, tuple[int, ...]]
    seeds: int = 5
    noise: Draw = lambda rng, shape: rng.normal(size=shape)
    sd: float = 0.004
    diverges: dict[str, float] | None = None
    step: float = 0.01


EQUAL = {"none": 0.92, "batch": 0.92, "layer": 0.92, "weight": 0.92}
ONE, THREE, FIVE = (dict.fromkeys(EQUAL, steps) for steps in ((0,), (-1, 0, 1), (-2, -1, 0, 1, 2)))
SCENARIOS = {
    "all equal": Scenario(EQUAL, ONE),
    "one better": Scenario(EQUAL | {"batch": 0.93}, ONE),
    "at the margin": Scenario(EQUAL | {"batch": 0.92 + MARGIN, "layer": 0.92 - MARGIN}, ONE, sd=0.002),
    "diverging": Scenario(EQUAL | {"batch": 0.93}, ONE, diverges={"batch": 0.6}),
    "own best lr": Scenario(EQUAL, THREE),
    "unequal grids": Scenario(EQUAL, {**THREE, "batch": (-2, -1, 0, 1, 2)}),
    "lr does not matter": Scenario(EQUAL, {**THREE, "batch": (-2, -1, 0, 1, 2)}, step=0.0),
    "few seeds": Scenario(EQUAL, THREE, seeds=3),
    "heavy tails": Scenario(EQUAL, ONE, noise=lambda rng, shape: rng.standard_t(3, shape) / 3**0.5),
    "a draw of the data per seed": Scenario(EQUAL | {"layer": 0.93}, ONE, sd=0.01),
}


def made_up(scenario: Scenario, rng: np.random.Generator) -> tuple[Study, dict[tuple[str, float], float]]:
    """A study, and the true mean accuracy by scheme and lr."""
    runs, truth = [], {}
    shared = rng.normal(0, 0.003, scenario.seeds)  # the same for all schemes: pairs are correlated
    for scheme, steps in scenario.grids.items():
        rate = (scenario.diverges or {}).get(scheme, 0.0)
        noise = scenario.sd * scenario.noise(rng, (len(steps), scenario.seeds))
        for i, step in enumerate(steps):
            lr, mean = 0.1 * 3.0**step, scenario.means[scheme] - scenario.step * abs(step)
            truth[scheme, lr] = (1 - rate) * mean + rate * CHANCE
            for seed in range(scenario.seeds):
                accuracy = min(1.0, mean + shared[seed] + noise[i, seed])
                diverged = rng.random() < rate
                validation = min(1.0, accuracy + rng.normal(0, 0.002))
                runs.append(_run(scheme, lr, seed, None if diverged else (accuracy, validation)))
    return Study(Path("made_up"), tuple(runs)), truth


def _run(norm: str, lr: float, seed: int, found: tuple[float, float] | None) -> Run:
    chosen = {"norm": norm, "model": "mlp", "dataset": "mnist"}
    config = {**{group: {"name": name} for group, name in chosen.items()}, "lr": lr, "seed": seed}
    test, validation = found or (None, None)
    run = Run(Path(f"{norm}-{lr:g}-{seed}"))
    run.__dict__["record"] = {"schema_version": SCHEMA_VERSION, "choices": chosen, "config": config}
    run.__dict__["summary"] = {
        "status": "complete" if found else "diverged", "steps": 100, "samples": 6400, "at_chance": False,
        "test_accuracy": test, "validation_accuracy": validation, "dataset": {"classes": round(1 / CHANCE)},
    }  # fmt: skip
    return run


def examine(scenario: Scenario, rng: np.random.Generator) -> dict[str, Any]:
    """One study: its false sentences, and how many of its intervals cover the truth."""
    study, truth = made_up(scenario, rng)
    groups = read(study)
    [by_scheme] = choices(groups).values()
    true = {scheme: truth[scheme, choice.lr] for scheme, choice in by_scheme.items() if choice.lr is not None}
    sentences = answer(groups)
    verdict = judge(CLAIM, groups, {}).answers[0].verdict
    false = [words for words in sentences if not holds(words, true)]
    right = {"supported": true["batch"] - true["none"] >= MARGIN, "contradicted": true["batch"] - true["none"] < MARGIN}
    false += [f"claim {verdict}"] * (not right.get(verdict, True))
    rows = records(compare_at_best_lr(groups, "none", MARGIN))
    inside = [row["low"] <= true[row["scheme"]] - true["none"] <= row["high"] for row in rows if row["low"] is not None]
    return {"false": bool(false), "sentences": false, "covered": sum(inside), "intervals": len(inside)}


def holds(words: str, true: dict[str, float]) -> bool:
    """Whether a sentence of the answer is true; those that state nothing of the truth are."""
    gain = {scheme: round(mean - true["none"], 12) for scheme, mean in true.items()}
    if found := re.match(r"Better than none[^:]*: (.*)", words):
        return all(gain[name] > 0 for name in _names(found[1], true))
    if words.startswith("Recommended"):
        best = max(true.values())
        return any(round(true[name] - best, 12) >= 0 for name in _names(words.partition(": ")[2], true))
    kinds = {"worse": lambda d: d < 0, "equivalent within [0-9.]+ points": lambda d: abs(d) < MARGIN}
    lists = [(fits, re.search(rf"\d+ {kind} \(([^)]*)\)", words)) for kind, fits in kinds.items()]
    return all(fits(gain[name]) for fits, found in lists if found for name in _names(found[1], true))


def _names(words: str, true: Iterable[str]) -> list[str]:
    """The schemes that are named as such: at the start, or after a comma, a colon or a semicolon."""
    others = words.partition(" against ")
    text = others[0] + (". " + others[2].partition(". ")[2] if others[1] else "")
    return [name for name in true if re.search(rf"(^|[,;:] ){name}\b", text)]


def simulate(scenario: Scenario, studies: int, seed: int = 0) -> pd.Series:
    """The share of false studies, and of intervals that cover the truth."""
    found = pd.DataFrame([examine(scenario, np.random.default_rng((seed, i))) for i in range(studies)])
    false, coverage = found["false"].mean(), found["covered"].sum() / max(1, found["intervals"].sum())
    return pd.Series({"false": false, "coverage": coverage, "studies": studies})


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    only = sys.argv[2:] or list(SCENARIOS)
    print(pd.DataFrame({name: simulate(SCENARIOS[name], count) for name in only}).T.to_string())
