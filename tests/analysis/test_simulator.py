"""What is printed of studies whose truth is known is seldom false, and intervals cover what they say.

A small number of studies here; 2,000 of each scenario with `pytest -m full` (some minutes each).
"""

from __future__ import annotations

import pytest
from scipy import stats

from tests.analysis.simulator import SCENARIOS, holds, simulate

TRUE = {"none": 0.90, "batch": 0.91, "layer": 0.902, "weight": 0.89}


@pytest.mark.parametrize(
    ("words", "true"),
    [
        ("Better than none: batch, +1.00 points (95% interval +0.90 to +1.10, 5 pairs, p < 0.001 after Holm).", True),
        ("Better than none, each at its own best lr: batch, +1.00 points (5 pairs); weight, +1.00 points.", False),
        ("No scheme is shown to be better than none. Closest: weight, +0.10 points: inconclusive.", True),
        ("Of 3 comparisons: 1 worse (weight); 1 equivalent within 0.5 points (layer); 1 inconclusive (batch).", True),
        ("Of 3 comparisons: 1 worse (layer); 2 inconclusive (batch; weight).", False),
        ("Of 3 comparisons: 1 equivalent within 0.5 points (batch).", False),
        ("Recommended here: batch, 91.00% test accuracy, +1.00 points against none.", True),
        (
            "Recommended here: layer, 91% test accuracy, +1 points against none. Not significantly different: none.",
            False,
        ),
        ("Recommended here: layer, 91% test accuracy. Not significantly different from it: none, batch.", True),
    ],
)
def test_the_judge_knows_a_false_sentence(words: str, true: bool) -> None:
    assert holds(words, TRUE) is true


def test_few_made_up_studies_print_a_false_sentence() -> None:
    """Each scenario in small; a fault such as survivors that win makes nearly all studies of one false."""
    found = [simulate(scenario, 6, seed=1) for scenario in SCENARIOS.values()]
    assert sum(6 * one["false"] for one in found) <= stats.binom.ppf(0.999, 6 * len(found), 0.05)
    assert sum(one["coverage"] for one in found) / len(found) >= 0.85


@pytest.mark.full
@pytest.mark.parametrize("name", SCENARIOS)
def test_at_most_5_percent_of_studies_print_a_false_sentence(name: str) -> None:
    found = simulate(SCENARIOS[name], 2000)
    assert found["false"] <= 0.05, found.to_dict()
    assert found["coverage"] >= 0.93, found.to_dict()
