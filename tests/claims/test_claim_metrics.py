"""The numbers of runs, on small hand-made studies."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from normbench.claims.metrics import NEVER, AnyMetric, Number
from normbench.runs import Run
from tests.study_files import Row, measure

Add = Callable[..., Path]


def of(run: Path, metric: Any) -> Number:
    return TypeAdapter(AnyMetric).validate_python(metric).of(Run(run))


def test_numbers_of_the_summary(add: Add) -> None:
    run = add(accuracy=0.9)
    assert of(run, "test_accuracy") == Number(0.9)
    assert of(run, "seconds.training") == Number(10.0)
    assert of(run, "measured.shift.hidden1") == Number(0.5)
    assert of(run, "test_acuracy") == Number(None, "no test_acuracy")
    for status in ("diverged", "unsupported", "failed", "interrupted"):
        assert of(add(status=status, seed=1, lr=len(status)), "test_accuracy") == Number(None, status)


def test_the_way_to_an_accuracy(add: Add) -> None:
    """An evaluation every 10 updates, 1,000 images and second of training; 100 updates in 10 s are the budget."""
    run = add(curve=(0.1, 0.8, 0.95, 0.9))
    assert of(run, {"steps_to": 0.9}).value == pytest.approx(10 + 10 * 2 / 3)  # on a straight line from 0.8 to 0.95
    assert of(run, {"samples_to": 0.8}).value == pytest.approx(1000)
    assert of(run, {"seconds_to": 0.95}).value == pytest.approx(2)
    assert of(run, {"steps_to": 0.99}) == Number(100, NEVER, 1)
    assert of(run, {"seconds_to": 0.99}) == Number(10, NEVER, 1)
    early = add(status="diverged", seed=1, curve=(0.1,), summary={"steps": 20, "samples": 1280})
    assert of(early, {"steps_to": 0.9}).value == 20
    record = early / "config.yaml"
    record.write_text(record.read_text() + "total_steps: 100\n")
    assert of(early, {"steps_to": 0.9}) == Number(100, f"diverged and {NEVER}", 1)
    assert of(early, {"samples_to": 0.9}).value == 6400
    assert of(early, {"seconds_to": 0.9}).value == 50  # at its own pace
    assert of(add(status="unsupported", seed=2), {"steps_to": 0.9}) == Number(None, "unsupported")


def test_success_and_accuracy_count_diverged_runs(add: Add) -> None:
    runs = [add(seed=0), add(seed=1, summary={"at_chance": True}), add(seed=2, status="diverged"),
            add(seed=3, status="unsupported"), add(seed=4, status="failed")]  # fmt: skip
    assert [of(run, {"trained": True}).value for run in runs] == [1, 0, 0, 0, None]
    assert [of(run, {"accuracy": "test"}).value for run in runs] == [0.9, 0.9, 0.1, None, None]
    assert of(runs[2], {"accuracy": "validation"}).note == "diverged: counts at chance"
    assert of(runs[1], {"trained": True}).note == "at chance: counts as 0"


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
def test_tables(add: Add, words: dict[str, Any], value: float | None) -> None:
    run = measure(add(), "moves", ROWS)
    assert of(run, {"table": "moves", "column": "w1", **words}).value == value


def test_a_table_that_is_not_there(add: Add) -> None:
    assert of(add(), {"table": "moves", "column": "w1"}) == Number(None, "no such rows of moves")
    assert of(add(seed=1, status="diverged"), {"table": "moves", "column": "w1"}) == Number(None, "diverged")


def test_two_numbers_of_a_run(add: Add) -> None:
    run = add(accuracy=0.9, curve=(0.1, 0.8))
    assert of(run, {"minus": ["test_accuracy", "train_loss"]}).value == pytest.approx(0.8)
    assert of(run, {"ratio": ["seconds.training", "steps"]}).value == pytest.approx(0.1)
    assert of(run, {"ratio": ["seconds.training", {"steps_to": 0.95}]}) == Number(0.1, NEVER, -1)
    assert of(run, {"minus": [{"steps_to": 0.9}, {"steps_to": 0.95}]}) == Number(None, "neither gets there")
    assert of(run, {"minus": ["test_accuracy", "nothing"]}) == Number(None, "no nothing")
    assert of(run, {"ratio": ["test_accuracy", "seed"]}).value is None


def test_the_gap_at_a_training_loss(add: Add) -> None:
    losses = [(0, 2.3, 2.3), (10, 0.3, 0.4), (20, 0.1, 0.5), (30, 0.05, 0.7)]
    run = measure(add(), "fit", [{"step": s, "train_loss": t, "validation_loss": v} for s, t, v in losses])
    assert of(run, {"gap_at": 0.1}).value == pytest.approx(0.4)
    assert of(run, {"gap_at": 0.2}).value == pytest.approx(0.1 + 0.5 * 0.3)
    assert of(run, {"gap_at": 3}).value == 0
    assert of(run, {"gap_at": 0.01}) == Number(None, "training loss never at 0.01")
    assert of(add(seed=1), {"gap_at": 0.1}) == Number(None, "no table fit")
    assert math.isfinite(of(run, {"minus": [{"gap_at": 0.1}, "test_loss"]}).value or math.nan)
