"""Which runs and settings the figures of a network's inside show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis import measured
from normbench.analysis.groups import read
from normbench.runs import load
from tests.study_files import measure

Add = Callable[..., Path]
ROWS = [{"step": 0, "layer": "a", "tensor": "w", "gradient": 1}]


def add_measured(add: Add, **settings: object) -> None:
    measure(add(**settings), "gradients", ROWS)


def test_most_schemes_first_then_those_that_learn(study: Path, add: Add) -> None:
    for lr, accuracy in ((0.1, 0.5), (0.2, 0.8), (0.3, 0.6)):
        for norm in ("none", "batch"):
            add_measured(add, norm=norm, lr=lr, accuracy=accuracy)
    add_measured(add, norm="none", lr=0.4, accuracy=0.99)  # one scheme alone
    add(norm="batch", lr=0.4, accuracy=0.99)
    groups = read(load(study))
    chosen = measured.choose(groups, "gradients")
    assert chosen is not None
    assert chosen.setting == (("lr", 0.2),)
    assert {scheme: len(entries) for scheme, entries in chosen.runs.items()} == {"none": 1, "batch": 1}
    assert "none 1, batch 1. Of 4 settings" in chosen.words
    assert measured.best_settings(groups, groups.settings, 2) == [(("lr", 0.2),), (("lr", 0.4),)]
    assert measured.choose(groups, "landscape") is None


def test_what_has_no_rows_or_no_result_is_left_out(study: Path, add: Add) -> None:
    add_measured(add, norm="none", status="diverged")
    measure(add(norm="batch"), "gradients", ROWS[:0])  # a header alone
    add(norm="layer")
    assert measured.choose(read(load(study)), "gradients") is None


def test_a_scheme_without_result_counts_as_nothing_learnt(study: Path, add: Add) -> None:
    add(norm="none", accuracy=0.91)
    add(norm="batch", status="diverged")
    assert measured.mean_validation_accuracy(read(load(study)).settings[()]) == pytest.approx(0.45)


def test_by_batch_size_takes_the_fullest_of_the_other_settings(study: Path, add: Add) -> None:
    for lr, sizes in ((0.1, (4, 64)), (0.2, (4, 16, 64))):
        for size in sizes:
            add_measured(add, norm="none", lr=lr, batch_size=size)
    rest, found = measured.by_batch_size(read(load(study)), "gradients")
    assert (rest, list(found)) == ((("lr", 0.2),), [4, 16, 64])


def test_numbers_are_numbers_or_missing(study: Path, add: Add) -> None:
    measure(add(), "gradients", [{"step": 0, "gradient": v} for v in ("1.5", "inf", "x", "")])
    (run,) = read(load(study)).members
    found = measured.rows(run, "gradients", "gradient")
    assert found.gradient.dropna().tolist() == [1.5]
    assert len(measured.rows(run, "gradients", "gradient", "other")) == 0
    assert list(measured.rows(run, "nothing", "step")) == ["step", "layer", "tensor"]
