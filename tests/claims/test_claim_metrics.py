"""The numbers of runs, on small hand-made studies."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from normbench.analysis.groups import read
from normbench.claims.metrics import AnyMetric
from normbench.runs import load
from tests.study_files import Row, measure

Add = Callable[..., Path]


def of(study: Path, metric: Any) -> list[float]:
    """Of the runs of a study, which differ in the seed alone, in order of the seed."""
    [group] = read(load(study)).groups
    return [value for _, value in sorted(TypeAdapter(AnyMetric).validate_python(metric).of(group).items())]


def test_numbers_of_the_frame(study: Path, add: Add) -> None:
    for seed, status in enumerate(("complete", "diverged", "unsupported", "failed", "interrupted")):
        add(accuracy=0.9, seed=seed, status=status)
    assert of(study, "test_accuracy") == [0.9]  # of complete runs alone
    assert of(study, "seconds.training") == [10.0]
    assert of(study, "measured.shift.hidden1") == [0.5]
    assert of(study, "test_acuracy") == []


def test_the_way_to_an_accuracy(study: Path, add: Add) -> None:
    """An evaluation every 10 updates; infinitely many where a run never gets there."""
    add(seed=0, curve=(0.1, 0.8, 0.95, 0.9))
    add(seed=1, status="diverged", curve=(0.1,))
    add(seed=2, status="diverged", curve=(0.1, 0.95))  # had been there before
    add(seed=3, status="unsupported")
    assert of(study, {"steps_to": 0.9}) == pytest.approx([10 + 10 * 2 / 3, math.inf, 10 * 0.8 / 0.85])
    assert of(study, {"steps_to": 0.99}) == [math.inf] * 3


def test_success_and_accuracy_count_diverged_runs(study: Path, add: Add) -> None:
    add(seed=0)
    add(seed=1, summary={"at_chance": True})
    add(seed=2, status="diverged")
    add(seed=3, status="unsupported")
    add(seed=4, status="failed")
    add(seed=5, summary={"at_chance": None})  # too few test images to tell
    assert of(study, {"trained": True}) == [1, 0, 0, 0]
    assert of(study, {"accuracy": "test"}) == [0.9, 0.9, 0.1, 0.9]
    assert of(study, {"accuracy": "validation"}) == pytest.approx([0.89, 0.89, 0.1, 0.89])


ROWS: list[Row] = [
    {"step": step, "layer": layer, "tensor": "linear", "since": since, "unit": unit, "w1": value}
    for step, layer, since, unit, value in [
        (0, "hidden1", "start", "", 0.0),
        (5, "hidden1", "start", "", 4.0), (5, "hidden2", "start", "", 8.0), (5, "hidden3", "start", "", 9.0),
        (9, "hidden1", "start", "", 1.0), (9, "hidden2", "start", "", 3.0), (9, "hidden3", "start", "", 2.0),
        (9, "hidden1", "start", 7, 50.0), (9, "hidden1", "path", "", 60.0), (9, "hidden9", "start", "", "nan"),
    ]
]  # fmt: skip
ALL = {"since": "start", "unit": None}


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ({"where": ALL}, 2),
        ({"where": ALL, "over": "max"}, 3),
        ({"where": ALL, "over": "min"}, 1),
        ({"where": ALL, "over": "median", "at": "max"}, 8),
        ({"where": ALL, "at": "first"}, 0),
        ({"where": ALL, "at": "mean"}, 3),
        ({"where": {**ALL, "layer": ["hidden1", "hidden2"]}}, 2),
        ({"where": {**ALL, "layer": "hidden3"}, "at": "first"}, 9),
        ({"where": {"unit": 7}}, 50),
        ({"where": {"since": "path"}}, 60),
        ({"where": {"layer": "hidden9"}}, None),
        ({"where": {"depth": 2}}, None),
    ],
)
def test_tables(study: Path, add: Add, words: dict[str, Any], value: float | None) -> None:
    measure(add(), "moves", ROWS)
    assert of(study, {"table": "moves", "column": "w1", **words}) == ([] if value is None else [value])


def test_a_table_that_is_not_there(study: Path, add: Add) -> None:
    add()
    assert of(study, {"table": "moves", "column": "w1"}) == []
    assert of(study, {"gap_at": 0.1}) == []


def test_two_numbers_of_a_run(study: Path, add: Add) -> None:
    add(accuracy=0.9, curve=(0.1, 0.8))
    assert of(study, {"minus": ["test_accuracy", "train_loss"]}) == pytest.approx([0.8])
    assert of(study, {"ratio": ["seconds.training", "steps"]}) == pytest.approx([0.1])
    assert of(study, {"ratio": ["seconds.training", {"steps_to": 0.95}]}) == [0]
    assert of(study, {"minus": [{"steps_to": 0.9}, {"steps_to": 0.95}]}) == []  # neither gets there
    assert of(study, {"minus": ["test_accuracy", "nothing"]}) == []
    assert of(study, {"ratio": ["test_accuracy", "seed"]}) == []  # of 0 there is none


def test_the_gap_at_a_training_loss(study: Path, add: Add) -> None:
    losses = [(0, 2.3, 2.3), (10, 0.3, 0.4), (20, 0.1, 0.5), (30, 0.05, 0.7)]
    measure(add(), "fit", [{"step": s, "train_loss": t, "validation_loss": v} for s, t, v in losses])
    gaps = {0.1: [0.4], 0.2: [0.1 + 0.5 * 0.3], 3: [0.0], 0.01: []}
    assert {at: of(study, {"gap_at": at}) for at in gaps} == {at: pytest.approx(gap) for at, gap in gaps.items()}
