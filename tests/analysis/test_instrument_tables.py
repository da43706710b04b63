"""Time to target, statistics at inference and weight perturbation, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.answer import tables
from normbench.analysis.groups import read
from normbench.analysis.instrument_tables import inference_table, mixture_table, perturbation_table, recovery
from normbench.analysis.measured import rows
from normbench.analysis.statistics import estimate
from normbench.analysis.targets import median, time_table
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
        measured(add(norm="batch", seed=seed), ema=ema, precise=precise, batch=0.7)
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


def test_the_weights_of_each_layer_and_batch_size(study: Path, add: Add) -> None:
    add(norm="batch", batch_size=4)
    assert mixture_table(read(load(study))) is None
    for size, seed, share in ((4, 0, 0.7), (4, 1, 0.9), (64, 0, 0.2)):
        dense = [
            {"layer": "fc", "tensor": f"var_{part}", "mean": w} for part, w in (("layer", share), ("batch", 1 - share))
        ]
        others = [
            {"layer": "fc", "tensor": "gamma", "mean": 1.0},
            {"layer": "conv", "tensor": "mean_instance", "mean": share},
        ]
        start = [{"step": 0, "layer": "fc", "tensor": "var_layer", "mean": 0.5}]
        run = add(norm="switchable", batch_size=size, seed=seed)
        measure(run, "parameters", [*start, *({"step": 9, **row} for row in dense + others)])
    table = mixture_table(read(load(study)))
    assert table is not None
    found = {(row["batch_size"], row["layer"]): row for row in table.rows}
    assert set(found) == {(size, layer) for size in (4, 64) for layer in ("fc", "conv")}
    small = found[4, "fc"]
    assert (small["n"], small["var_layer"], small["var_batch"]) == (2, pytest.approx(0.8), pytest.approx(0.2))
    assert (small["var_instance_text"], small["var_layer_text"][:5]) == ("–", "80.00"), "no instances there"
    assert found[64, "conv"]["mean_instance_text"] == "20.00"


def test_nothing_measured_names_the_instrument(study: Path, add: Add) -> None:
    add(norm="layer")
    table = inference_table(read(load(study)))
    assert (list(table.rows), table.note.endswith("The instrument statistics does.")) == ([], True)


def test_runs_that_never_get_there_count(study: Path, add: Add) -> None:
    """An evaluation every 10 updates, 1,000 images and second of training."""
    add(norm="none", seed=0, curve=(0.1, 0.95, 0.99))
    add(norm="none", seed=1, curve=(0.1, 0.90, 0.96))
    add(norm="none", seed=2, curve=(0.1, 0.96, 0.94))  # reached is reached
    add(norm="batch", seed=0, curve=(0.1, 0.2, 0.3, 0.97))
    add(norm="batch", seed=1, curve=(0.1, 0.2, 0.3, 0.4), status="diverged")
    add(norm="batch", seed=2, status="failed")
    add(norm="layer", seed=0, status="unsupported")
    table = time_table(read(load(study)), (0.95, 0.98))
    found = {(row["scheme"], row["target"]): row for row in table.rows}
    none = found["none", 0.95]
    assert (none["n"], none["reached"], none["steps"], none["samples"], none["seconds"]) == (3, 3, 10, 1000, 1)
    late = found["none", 0.98]
    assert (late["reached_text"], late["steps"], late["steps_of_reached"]) == ("1/3", math.inf, pytest.approx(17.5))
    batch = found["batch", 0.95]
    assert (batch["reached_text"], batch["seconds"]) == ("1/2", math.inf)
    assert batch["seconds_of_reached"] == pytest.approx(2 + 65 / 67)
    assert batch["remarks"] == "1 diverged, 1 failed"
    layer = found["layer", 0.95]
    assert (layer["n"], layer["steps"], layer["remarks"]) == (0, None, "1 unsupported")
    assert [table.texts(row)[-4] for row in (none, late, layer)] == ["10", "not reached", "–"]


def test_median_with_the_late() -> None:
    times = [{"steps": 10.0}, None, {"steps": 30.0}]
    assert median(times, "steps") == 30
    assert median([*times, None], "steps") == math.inf
    assert median([], "steps") is None


def test_a_line_that_is_no_number_is_no_evaluation(study: Path, add: Add) -> None:
    path = add(curve=(0.1, 0.96, 0.97))
    table = path / "epochs.csv"
    table.write_text(table.read_text().replace("0.96", "0.9x"))
    assert [row["steps"] for row in time_table(read(load(study)), (0.95,)).rows] == [pytest.approx(20 * 85 / 87)]


def test_the_same_curve_has_the_same_time_however_often_it_was_evaluated(study: Path, add: Add) -> None:
    for norm, every in (("none", 1), ("batch", 4)):
        path = add(norm=norm, curve=(), evaluations=40 // every)
        lines = [f"{10 * i},{1000 * i},{i / 50},{i},0.5,{0.1 + 0.02 * i}" for i in range(0, 41, every)]
        (path / "epochs.csv").write_text("\n".join([(path / "epochs.csv").read_text().strip(), *lines]) + "\n")
    made = time_table(read(load(study)), (0.55,)).rows
    assert [row["steps"] for row in made] == pytest.approx([225, 225])


def test_a_run_without_evaluations_reaches_nothing(study: Path, add: Add) -> None:
    add(curve=())
    assert [row["reached"] for row in time_table(read(load(study)), (0.95,)).rows] == [0]


PERTURBATION = {
    "step": 20,
    "training_before": 0.2,
    "training_after": 0.5,
    "evaluation_before": 0.3,
    "evaluation_after": 0.9,
}
# one row of steps.csv every ten updates, the loss being 1 - value: the 20 updates before the change have a mean of 0.25
CURVE = (0.1, 0.7, 0.8, 0.5, 0.6, 0.74, 0.77, 0.9)


def test_losses_are_means_and_recovery_ends_with_the_first_window_as_good_as_before(
    study: Path, add: Callable[..., Path]
) -> None:
    add(norm="none", seed=0, curve=CURVE, summary={"perturbation": PERTURBATION})
    add(norm="none", seed=1, curve=CURVE, summary={"perturbation": PERTURBATION | {"training_after": 0.7}})
    add(
        norm="none",
        seed=2,
        status="diverged",
        curve=CURVE[:5],
        summary={"perturbation": PERTURBATION | {"training_after": None}},
    )
    groups = read(load(study))
    assert [recovery(run) for run in groups.members] == [40.0, 40.0, math.inf]  # 0.26 and 0.23: 0.245
    table = perturbation_table(groups)
    assert table is not None
    [row] = table.rows
    assert (row["n"], row["recovery"], row["remarks"]) == (3, 40.0, "1 diverged")
    assert row["training_after"] == pytest.approx(0.6)
    assert row["evaluation_after"] == pytest.approx(0.9)
    assert "40" in table.texts(row)
    assert tables(groups)[-1].name == "scale_shock"


def test_a_study_without_a_perturbation_has_no_such_table(study: Path, add: Callable[..., Path]) -> None:
    add(norm="none")
    assert all(table.name != "scale_shock" for table in tables(read(load(study))))


def test_numbers_are_numbers_or_missing(study: Path, add: Add) -> None:
    measure(add(), "gradients", [{"step": 0, "gradient": v} for v in ("1.5", "inf", "x", "")])
    (run,) = read(load(study)).members
    found = rows(run, "gradients", "gradient")
    assert found.gradient.dropna().tolist() == [1.5]
    assert len(rows(run, "gradients", "gradient", "other")) == 0
    assert list(rows(run, "nothing", "step")) == ["step", "layer", "tensor"]
