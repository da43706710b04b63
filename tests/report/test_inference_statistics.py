from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.groups import read
from normbench.analysis.inference_statistics import inference_table
from normbench.analysis.statistics import estimate
from normbench.runs import load
from tests.study_files import measure

Add = Callable[..., Path]


def measured(run: Path, **accuracy: float) -> None:
    """Rows of the whole network at the last step, beside those that the table must pass over."""
    last = [{"step": 9, "statistics": kind, "accuracy": value} for kind, value in accuracy.items()]
    early = [{"step": 0, "statistics": kind, "accuracy": 0.1} for kind in accuracy]
    of_a_norm = [{"step": 9, "layer": "a", "norm": "norm", "statistics": "ema", "mean_error": 0.1}]
    measure(run, "statistics", [*early, *of_a_norm, *last])


def test_the_loss_is_split_by_hand(study: Path, add: Add) -> None:
    for seed, (ema, precise, none) in enumerate([(0.80, 0.85, 0.90), (0.82, 0.84, 0.92), (0.81, 0.86, 0.93)]):
        measured(add(norm="batch", seed=seed), ema=ema, precise=precise, averages=0.83, batch=0.7)
        if seed < 2:  # the third has no partner
            add(norm="none", seed=seed, summary={"validation_accuracy": none})
    add(norm="batch", seed=3)  # looked at by no instrument
    add(norm="batch", seed=4, status="diverged")
    add(norm="none", seed=4)
    [row] = inference_table(read(load(study))).rows
    assert (row["scheme"], row["n"], row["pairs"]) == ("batch", 3, 2)
    for kind, values in {"ema": [0.80, 0.82, 0.81], "precise": [0.85, 0.84, 0.86], "batch": [0.7] * 3}.items():
        wanted = estimate(values)
        assert wanted is not None
        assert [row[kind], row[f"{kind}_low"]] == pytest.approx([wanted.mean, wanted.low])
    assert row["averages"] is None
    for part, values in {"loss": [0.1, 0.1], "recovered": [0.05, 0.02], "lost": [0.05, 0.08]}.items():
        wanted = estimate(values)
        assert wanted is not None
        assert [row[part], row[f"{part}_high"]] == pytest.approx([wanted.mean, wanted.high])
    assert row["recovered"] + row["lost"] == pytest.approx(row["loss"])
    assert row["recovered_text"] == "+3.50 ± 19.06"
    assert row["remarks"] == "1 diverged, 1 not measured"


def test_without_none_there_is_no_loss_and_each_setting_has_its_own(study: Path, add: Add) -> None:
    for size in (4, 64):
        measured(add(norm="batch", batch_size=size), ema=0.8, precise=0.9)
    add(norm="none", batch_size=64, summary={"validation_accuracy": 0.95})
    table = inference_table(read(load(study)))
    four, many = table.rows
    assert (four["batch_size"], four["loss"], four["loss_text"], four["pairs"]) == (4, None, "–", 0)
    assert (many["batch_size"], many["loss_text"], many["recovered_text"]) == (64, "+15.00", "+10.00")
    assert len(table.texts(four)) == len(table.columns)


def test_another_kind_in_the_run_itself_is_another_scheme(study: Path, add: Add) -> None:
    for seed, kind in enumerate(("precise", "ema", "ema")):
        measured(add(norm="batch", seed=seed, options={"norm.statistics": kind}), ema=0.8, precise=0.9)
    schemes = {row["scheme"]: row["n"] for row in inference_table(read(load(study))).rows}
    assert schemes == {"batch statistics=ema": 2, "batch statistics=precise": 1}


def test_nothing_measured_names_the_instrument(study: Path, add: Add) -> None:
    add(norm="layer")
    table = inference_table(read(load(study)))
    assert (list(table.rows), table.note.endswith("The instrument statistics does.")) == ([], True)
