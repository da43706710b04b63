"""What is printed of studies whose truth is known is seldom false, and intervals cover what they say.

A small number of studies here; 2,000 of each scenario with `pytest -m full` (some minutes each).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from normbench.analysis.answer import answer
from normbench.analysis.groups import read
from tests.analysis.simulator import BORDERS, KINDS, SCENARIOS, as_study, false_statements, made_up, simulate

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
        ("Recommended here: batch, 91.00% test accuracy, +1.00 points against none. With 95% confidence.", True),
        ("Recommended here: layer, 91% test accuracy, +1 points against batch.", False),
        (
            "Cannot be told apart here: none, batch (1 of 3 diverged) (with 95% confidence the best is among them).",
            True,
        ),
        ("Cannot be told apart here: none, layer (with 95% confidence the best is among them). Highest: batch.", False),
        (
            "Cannot be told apart here: none, layer (with 95% confidence the best is among them). Not run on fresh "
            "seeds: batch, weight (0.10 to 1.00 points below).",
            True,
        ),
    ],
)
def test_the_judge_knows_a_false_sentence(words: str, true: bool) -> None:
    assert (not false_statements(words, TRUE)) is true


@pytest.mark.parametrize("name", ["diverging", "flat and peaked", "search and confirmation"])
def test_the_shortcut_around_files_changes_no_word(name: str) -> None:
    groups, *_ = made_up(SCENARIOS[name], np.random.default_rng(4))
    assert answer(groups) == answer(read(as_study(groups)))


def test_few_made_up_studies_print_a_false_sentence() -> None:
    """Each scenario in small; a fault such as survivors that win makes nearly all studies of one false."""
    found = pd.DataFrame([simulate(scenario, 10, seed=1) for scenario in SCENARIOS.values()])
    assert found["false"].sum() * 10 <= stats.binom.ppf(0.999, 10 * len(found), 0.05)
    for kind in ("pointwise", "together"):
        assert (found[kind] * found[f"{kind} n"]).sum() / found[f"{kind} n"].sum() >= 0.9


@pytest.mark.full
@pytest.mark.parametrize("name", SCENARIOS)
def test_at_most_5_percent_of_studies_print_a_false_sentence(name: str) -> None:
    found = simulate(SCENARIOS[name], 2000)
    assert (found[["false", *KINDS] if name not in BORDERS else [*KINDS]] <= 0.05).all(), found.to_dict()
    assert not found["pointwise"] < 0.93, found.to_dict()  # NaN where there is none
    assert not found["together"] < 0.93, found.to_dict()
