"""Errors of running statistics: the formulas, what is known of averages of batch variances; accuracies."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from short_run import made_up, short_run
from torch import nn

from normbench.instruments import Statistics
from normbench.instruments.statistics import ERRORS
from normbench.norms import (
    Block,
    MeanVar,
    average_statistics,
    exact_statistics,
    load_statistics,
    statistics_of,
    use_batch_statistics,
    working_with,
)
from normbench.training.evaluation import sample_batches, statistics_errors
from normbench.training.loop import evaluate, loss_and_accuracy

CPU = torch.device("cpu")
TRAIN, VALIDATION = made_up(60), made_up(50, seed=1)


def in_training(network: nn.Module) -> nn.Module:
    """`network` in the middle of training, weights and statistics moved."""
    return short_run(network, train=TRAIN, lr=0.01).model


def looked_at(model: nn.Module, train: Any = TRAIN, batch_size: int = 8) -> tuple[list[dict], Statistics]:
    instrument = Statistics()
    run = short_run(model, updates=None, train=train, validation=VALIDATION, batch_size=batch_size)
    return run.measure(instrument, 10), instrument


def of_norms(found: list[dict], kind: str) -> dict[tuple[str, Any], dict]:
    return {(f"{row['layer']}.{row['norm']}", row.get("time")): row
            for row in found if row["layer"] and row["statistics"] == kind}  # fmt: skip


def of_network(found: list[dict]) -> dict[str, dict]:
    return {row["statistics"]: row for row in found if not row["layer"]}


def naive(found: MeanVar, exact: MeanVar, eps: float) -> list[float]:
    mean, ratio = [], []
    for j in range(len(exact.mean)):
        if exact.var[j] > 0:
            mean.append((found.mean[j] - exact.mean[j]).item() / math.sqrt(exact.var[j] + eps))
            ratio.append((found.var[j] + eps).item() / (exact.var[j] + eps).item())
    return [np.sqrt(np.mean(np.square(mean))), np.mean(ratio), np.sqrt(np.mean((np.array(ratio) - 1) ** 2))]


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.3])
def test_errors_are_those_of_a_naive_implementation(eps):
    rng = torch.Generator().manual_seed(0)
    found, exact = (MeanVar(*torch.rand(2, 4, 9, generator=rng, dtype=torch.float64)) for _ in range(2))
    exact.var[1, 3:5] = 0
    units, numbers = statistics_errors(found, exact, eps)
    assert units.tolist() == [9, 7, 9, 9]
    for t in range(4):
        step = [MeanVar(part.mean[t], part.var[t]) for part in (found, exact)]
        wanted = naive(*step, eps)
        assert numbers[t].tolist() == pytest.approx(wanted, rel=1e-12)
        assert statistics_errors(*step, eps)[1][0].tolist() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("norm", "network"), [("batch", "cnn"), ("mean_only", "mlp"), ("ghost_batch", "rnn")])
def test_numbers_are_those_of_a_naive_implementation(norm, network, network_of):
    model = in_training(network_of(norm, network))
    found, _ = looked_at(model)
    exact = exact_statistics(model, TRAIN.images)
    by_norm, kept = of_norms(found, "ema"), statistics_of(model)
    assert {name for name, _ in by_norm} == kept.keys() == exact.keys()
    for (name, t), row in by_norm.items():
        units, numbers = statistics_errors(kept[name], exact[name], getattr(model.get_submodule(name), "eps", 0.0))
        wanted, count = (numbers.nanmedian(0).values, units.sum()) if t is None else (numbers[t], units[t])
        assert row["units"] == count
        assert [row[name] for name in ERRORS] == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-6, nan_ok=True)
        assert norm != "mean_only" or math.isnan(row["var_ratio"])
    assert {t for _, t in by_norm} - {None} == (set(range(8)) if network == "rnn" else set())


@pytest.mark.parametrize("norm", ["batch", "batch_renorm", "mean_only", "layer"])
def test_accuracy_is_that_of_evaluation(norm, network_of):
    model = in_training(network_of(norm, "cnn"))
    found, instrument = looked_at(model)
    if not statistics_of(model):
        assert found == []
        assert instrument.result == {}
        return
    numbers = of_network(found)
    assert list(numbers) == ["ema", "averages", "precise", "batch"]
    for kind in ("ema", "precise"):
        other = copy.deepcopy(model)
        load_statistics(other, exact_statistics(model, TRAIN.images) if kind == "precise" else statistics_of(model))
        loss, accuracy = evaluate(other, VALIDATION)
        assert numbers[kind]["loss"] == pytest.approx(loss, rel=1e-4)
        assert numbers[kind]["accuracy"] == pytest.approx(accuracy, abs=0.021)  # an image on the edge of two classes
    for name in ("accuracy", "loss"):
        assert instrument.result[name] == {kind: row[name] for kind, row in numbers.items()}


def test_batches_are_those_of_training(network_of):
    model = in_training(network_of("batch", "mlp"))
    numbers = of_network(looked_at(model)[0])["batch"]
    other, losses = copy.deepcopy(model).eval(), []
    use_batch_statistics(other)
    for images, labels in sample_batches(VALIDATION, 48, 8, CPU):  # of 50; the rest is no full batch
        losses.append(F.cross_entropy(other(images), labels).item())
    assert numbers["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    whole = of_network(looked_at(model, train=VALIDATION, batch_size=1000)[0])  # its own exact statistics
    assert whole["batch"]["loss"] == pytest.approx(whole["precise"]["loss"], rel=1e-5)
    assert whole["batch"]["accuracy"] == whole["precise"]["accuracy"]


def test_averages_are_over_mini_batches_at_the_present_weights(network_of):
    model = in_training(network_of("batch", "mlp"))
    found, _ = looked_at(model)
    wanted = average_statistics(model, [images for images, _ in sample_batches(TRAIN, 56, 8, CPU)])  # of 60
    exact = exact_statistics(model, TRAIN.images)
    for (name, _), row in of_norms(found, "averages").items():
        assert [row[e] for e in ERRORS] == pytest.approx(naive(wanted[name], exact[name], 1e-5), rel=1e-4)
    with working_with(model, "averages", wanted):
        loss, accuracy = loss_and_accuracy(model, sample_batches(VALIDATION, 50, 50, CPU))
    numbers = of_network(found)["averages"]
    assert [numbers["loss"], numbers["accuracy"]] == pytest.approx([loss, accuracy], rel=1e-5)


def test_exact_statistics_have_no_error_and_those_of_the_start_have(network_of):
    model = network_of("batch", "mlp")
    exact = exact_statistics(model, TRAIN.images)
    row = of_norms(looked_at(model)[0], "ema")["hidden1.norm", None]
    wanted = naive(MeanVar(torch.zeros(12), torch.ones(12)), exact["hidden1.norm"], 1e-5)
    assert [row[name] for name in ERRORS] == pytest.approx(wanted, rel=1e-4)
    load_statistics(model, exact)
    found, _ = looked_at(model)
    for row in of_norms(found, "ema").values():
        assert [row[name] for name in ERRORS] == pytest.approx([0, 1, 0], abs=1e-5)
        assert row["images"] == 60
    assert of_network(found)["ema"]["loss"] == pytest.approx(of_network(found)["precise"]["loss"])


def test_torchs_own_batch_norm():
    model = nn.Sequential(nn.Flatten(), Block(nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU()), Block(nn.Linear(6, 5)))
    found, _ = looked_at(model)
    assert list(of_network(found)) == ["ema", "averages", "precise", "batch"]
    assert list(of_norms(found, "ema")) == [("1.norm", None)]
