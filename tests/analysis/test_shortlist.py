"""Which schemes may be the best: by hand, in sentences and as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from normbench.analysis.answer import answer
from normbench.analysis.groups import read
from normbench.analysis.shortlist import recommendations, shortlist_table
from normbench.runs import load

Add = Callable[..., Path]
SEEDS = (0, 1, 2, 3)


def test_the_shortlist_by_hand_with_interval_and_cost(study: Path, add: Add) -> None:
    """Batch and layer differ by 0.11 points, with a standard deviation of 0.16; none and weight are behind."""
    seconds = {"none": 10.0, "batch": 20.0, "layer": 12.0, "weight": 11.0}
    by_seed = {
        "none": (0.900, 0.901, 0.902, 0.903), "batch": (0.92005, 0.92055, 0.92105, 0.92155),
        "layer": (0.919, 0.919, 0.922, 0.919), "weight": (0.910, 0.911, 0.912, 0.9131),
    }  # fmt: skip
    for norm, accuracies in by_seed.items():
        for seed, accuracy in zip(SEEDS, accuracies, strict=True):
            add(norm=norm, seed=seed, accuracy=accuracy, summary={"seconds": {"training": seconds[norm]}})
    groups = read(load(study))
    [sentence] = recommendations(groups, "none")
    assert answer(groups)[0] == sentence

    def interval(values: list[float], among: int) -> str:
        low, high = stats.ttest_1samp(100 * np.array(values), 0).confidence_interval(1 - 0.05 / among)
        return f"{low:{'+' if low < 50 else ''}.2f} to {high:{'+' if low < 50 else ''}.2f}"

    gains = [a - b for a, b in zip(by_seed["batch"], by_seed["none"], strict=True)]
    assert sentence == (
        "Cannot be told apart here: batch, layer (with 95% confidence the best of the 4 schemes is among them). "
        f"Highest in validation accuracy: batch, 92.08% test accuracy (95% interval {interval(by_seed['batch'], 4)}, "
        f"4 seeds), +1.93 points ({interval(gains, 4)}) against none, in 2.00 times its training time; the cheapest is "
        "layer, in 0.60 times the time of batch. These intervals hold for all 4 schemes at once, as the same seeds "
        "chose among them."
    )
    for seed in range(4, 20):  # layer is worse in 19 of 20 seeds
        for norm, accuracies in by_seed.items():
            add(norm=norm, seed=seed, accuracy=accuracies[seed % 2] + 0.001 * (seed % 3))
    [sentence] = recommendations(read(load(study)), "none")
    assert sentence.startswith("Recommended here: batch, 92.")
    assert "With 95% confidence it is the best of the 4 schemes. " in sentence


def test_after_a_round_of_fresh_seeds_these_alone_are_compared(study: Path, add: Add) -> None:
    """Layer looks better than batch on the seeds that chose, and is worse on fresh ones; weight was not run again."""
    chosen = {"none": 0.90, "batch": 0.920, "layer": 0.930, "weight": 0.88}
    fresh = {"none": 0.90, "batch": 0.9204, "layer": 0.910}
    for seed in range(3):
        for norm, accuracy in chosen.items():
            for lr, loss in ((0.01, 0.1), (0.1, 0.0), (1.0, 0.1)):
                add(norm=norm, lr=lr, seed=seed, accuracy=accuracy - loss + seed / 1000)
    for seed in range(10, 20):
        for norm, accuracy in fresh.items():
            wobble = {"none": seed % 4, "batch": seed % 3, "layer": seed % 2}[norm] / 1000
            add(norm=norm, lr=0.1, seed=seed, accuracy=accuracy + wobble)
    [sentence] = recommendations(read(load(study)), "none")
    assert sentence.startswith(
        "Recommended here: batch, 92.14% test accuracy (95% interval 92.08 to 92.20, 10 fresh seeds), +1.97 points (+"
    )
    assert "With 95% confidence it is the best of the 3 schemes that were run on fresh seeds. " in sentence
    assert sentence.endswith(
        "Not run on fresh seeds: weight (4.00 points below batch in validation accuracy on the seeds that chose)."
    )
    assert "at once" not in sentence


def test_each_scheme_is_judged_at_its_own_best_lr_and_not_where_runs_diverge(study: Path, add: Add) -> None:
    for seed in SEEDS:
        for lr, none, batch in ((0.01, 0.9, 0.7), (0.1, 0.93, 0.90), (1.0, 0.20, 0.95)):
            add(norm="none", lr=lr, seed=seed, accuracy=none)
            add(norm="batch", lr=lr, seed=seed, accuracy=batch)
            if lr < 1.0:
                add(norm="layer", lr=lr, seed=seed, accuracy=0.90 + lr / 10)
        add(norm="layer", lr=1.0, seed=seed, **({"status": "diverged"} if seed == 0 else {"accuracy": 0.99}))
    [sentence] = recommendations(read(load(study)), "none")
    assert sentence.startswith("Undecided here: highest so far batch, 95.00%")
    assert ", +2.00 points against none, in 1.00 times its training time; " in sentence
    assert sentence.endswith("; batch: the best lr lies at the edge (1); add lr=3.")
    for seed in SEEDS:
        add(norm="batch", lr=3.0, seed=seed, accuracy=0.9)
    [sentence] = recommendations(read(load(study)), "none")
    assert sentence.startswith("Cannot be told apart here: none, batch, layer (")  # no spread, no test
    assert "Highest in validation accuracy: batch, 95.00%" in sentence


def test_of_two_schemes_nothing_is_recommended(study: Path, add: Add) -> None:
    for norm in ("none", "batch"):
        add(norm=norm, accuracy=0.9)
    groups = read(load(study))
    assert recommendations(groups, "none") == []
    assert shortlist_table(groups, "none").rows == []


def test_of_many_settings_one_sentence_has_the_names_and_the_table_has_the_numbers(study: Path, add: Add) -> None:
    """Batch fails at 2, all are equal at 4, batch is ahead at 8, nobody is better than chance at 16."""
    base = {2: (0.90, 0.50, 0.90), 4: (0.90, 0.90, 0.90), 8: (0.90, 0.94, 0.91), 16: (0.1, 0.1, 0.1)}
    for size, accuracies in base.items():
        for norm, accuracy, seconds in zip(("none", "batch", "layer"), accuracies, (10.0, 15.0, 12.0), strict=True):
            for seed in SEEDS:
                wobble = {"none": seed % 3 - 1, "batch": seed % 2, "layer": seed // 2}[norm] / 1000 * (size < 16)
                summary = {"seconds": {"training": seconds}, "at_chance": size == 16}
                add(norm=norm, batch_size=size, seed=seed, accuracy=accuracy + wobble, summary=summary)
    groups = read(load(study))
    assert recommendations(groups, "none") == [
        "May be the best, with 95% confidence in each setting: at batch size 2: none, layer; at batch size 4: none, "
        "batch, layer; at batch size 8: batch; at batch size 16: nothing, as no run does better than chance."
    ]
    rows = {row["batch_size"]: row for row in shortlist_table(groups, "none").rows}
    assert [rows[size]["may_be_best"] for size in (2, 8)] == ["none, layer", "batch"]
    assert rows[16]["may_be_best"] == "no run does better than chance"
    assert (rows[8]["highest"], rows[8]["compared"], rows[8]["seeds"]) == ("batch", 3, "4")
    assert (rows[2]["times"], rows[8]["times"]) == ("none 1.00, layer 1.20", "batch 1.50")
    gains = [0.94 + s % 2 / 1000 - (0.90 + (s % 3 - 1) / 1000) for s in SEEDS]
    expected = stats.ttest_1samp(gains, 0).confidence_interval(1 - 0.05 / 3)
    assert rows[8]["gain"] == pytest.approx(np.mean(gains))
    assert (rows[8]["gain_low"], rows[8]["gain_high"]) == pytest.approx(tuple(expected))
