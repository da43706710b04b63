"""Noise of mini-batches: the law for independent images, and batch by batch in numpy."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from looking import Images
from small_run import in_training, rows, run_around, split, through_a_checkpoint
from torch import Tensor, nn

from normbench.instruments import BatchNoise
from normbench.norms import Block, blocks, exact_statistics, load_statistics, use_batch_statistics
from normbench.training.evaluation import sample_batches

CPU = torch.device("cpu")


def noise_of(model: nn.Module, train: Images, batch_size: int, **options: Any) -> dict[tuple[str, str, str], Any]:
    instrument = BatchNoise(**options)
    probe = run_around(instrument, model, train, split(32, seed=9), batch_size)
    return {(row["layer"], row["tensor"], row["lower"]): row for row in rows(instrument, 10, model, probe)}


@pytest.mark.parametrize(("batch_size", "factor"), [(2, 1 / math.sqrt(math.pi)), (4, math.sqrt(3 / 4) * 0.921318)])
def test_standard_deviation_of_small_gaussian_batches(batch_size, factor):
    # E[s_b] / s for the biased s_b: .5642, and sqrt(3/4) c_4 = .7979 (c_4 is a table's)
    model = nn.Sequential(nn.Flatten(), Block(nn.Linear(64, 200)))
    row = noise_of(model, split(400 * batch_size), batch_size, batches=400)["1", "linear", "population"]
    assert row["batch_std"] == pytest.approx(factor, rel=0.01)
    assert row["noise_mean"] == pytest.approx(batch_size**-0.5, rel=0.03)
    assert (row["batches"], row["units"]) == (400, 200)


@pytest.fixture(scope="module")
def many() -> Images:
    return split(10_000)


@pytest.mark.parametrize("batch_size", [2, 4, 16, 64, 256])
def test_the_law_and_what_happens(batch_size, many, network_of):
    model = in_training(network_of("batch", "mlp", hidden=[40, 40, 40]), many, updates=20)
    for (layer, _, lower), row in noise_of(model, many, batch_size, batches=200).items():
        relative = row["noise_mean"] * math.sqrt(batch_size)
        if lower == "population":
            assert relative == pytest.approx(1, abs=0.1), layer
            assert row["noise_median"] == pytest.approx(row["noise_mean"], rel=0.1)
    training = [row["noise_mean"] * math.sqrt(batch_size) for row in of(model, many, batch_size, "linear", "training")]
    assert training[0] == pytest.approx(1, abs=0.1)
    assert max(training[1:]) < 0.8
    centred = of(model, many, batch_size, "normalized", "training")
    assert max(row["noise_mean"] for row in centred) < 1e-5


def of(model: nn.Module, images: Images, batch_size: int, tensor: str, lower: str) -> list[Any]:
    found = noise_of(model, images, batch_size, batches=200)
    return [row for key, row in found.items() if key[1:] == (tensor, lower)]


def test_without_norms_over_the_batch_both_are_the_same(many, network_of):
    found = noise_of(in_training(network_of("layer", "mlp"), many), many, 16)
    for (layer, tensor, _), row in found.items():
        assert row["noise_mean"] * 4 == pytest.approx(1, abs=0.15)
        assert str(row | {"lower": ""}) == str(found[layer, tensor, "training"] | {"lower": ""})  # NaN equals NaN


def naive(model: nn.Module, batches: list[Tensor], key: tuple[str, str], recurrent: bool) -> dict[str, float]:
    """From all values of the tensor, batch by batch and unit by unit."""
    seen: list[np.ndarray] = []
    for images in batches:
        parts: list[Tensor] = []
        block = dict(blocks(model))[key[0]]
        block.observer = lambda kind, value: parts.append(value.double()) if kind == key[1] else None  # noqa: B023
        with torch.no_grad():
            model(images)
        block.observer = None
        value = torch.cat(parts, 1) if recurrent else parts[0]  # [N, T*C] or [N, C, ...]
        seen.append(value.movedim(1, 0).flatten(1).numpy())  # [C, values]
    units = range(len(seen[0]))
    std = [np.concatenate([batch[j] for batch in seen]).std() for j in units]
    kept = [j for j in units if std[j] > 1e-6]
    spread = [np.std([batch[j].mean() for batch in seen], ddof=1) / std[j] for j in kept]
    inner = [np.mean([batch[j].std() for batch in seen]) / std[j] for j in kept]
    return {"units": len(kept), "noise_mean": np.mean(spread), "noise_median": np.median(spread),
            "batch_std": np.mean(inner)}  # fmt: skip


@pytest.mark.parametrize("network", ["mlp", "cnn", "rnn", "resnet"])
@pytest.mark.parametrize("norm", ["none", "batch", "mean_only", "batch_renorm"])
def test_numbers_are_those_of_a_naive_implementation(norm, network, network_of):
    train = split(70, dtype=torch.float64)
    model = in_training(network_of(norm, network, quiet=True).double(), train)
    instrument = BatchNoise(batches=5)
    probe = run_around(instrument, model, train, split(32, dtype=torch.float64), 8)
    found = rows(instrument, 10, model, probe)
    batches = [images for images, _ in sample_batches(train, 40, 8, CPU)]
    population, training = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    load_statistics(population, exact_statistics(population, torch.cat(batches)))
    use_batch_statistics(training)
    for row in found:
        key = row["layer"], row["tensor"]
        other = copy.deepcopy({"population": population, "training": training}[row["lower"]])
        start = copy.deepcopy(other.state_dict())
        other.register_forward_pre_hook(partial(restore, start))  # batch renorm's averages would move on
        wanted = naive(other, batches, key, bool(probe.times(key[0])))
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6, abs=1e-9), row


def restore(state: dict[str, Tensor], model: nn.Module, _: Any) -> None:
    model.load_state_dict(state)


def test_batches_are_drawn_at_random_once_and_none_twice():
    train = split(50)
    batches = sample_batches(train, 48, 8, CPU)
    together = torch.cat([images for images, _ in batches]).flatten(1)
    assert [len(labels) for _, labels in batches] == [8] * 6
    assert len(together.unique(dim=0)) == 48
    assert not torch.equal(together, train.images[:48].flatten(1))
    assert torch.equal(together, torch.cat([images for images, _ in sample_batches(train, 48, 8, CPU)]).flatten(1))


def test_drift_is_that_of_the_last_update(network_of):
    train, validation = split(64), split(100, seed=1)
    model = network_of("none", "mlp").double()
    validation.images = validation.images.double()
    train.images = train.images.double()
    instrument = BatchNoise()
    probe = run_around(instrument, model, train, validation, total=5)
    assert [i for i in range(7) if instrument.due(i)] == [4, 5]
    assert rows(instrument, 4, model, probe) == []
    resumed = through_a_checkpoint(instrument, BatchNoise())
    run_around(resumed, model, train, validation, total=5)
    with torch.no_grad():
        model.hidden1.linear.bias += 0.5
        std = probe.tensors()["hidden1", "linear"].std(0, correction=0).squeeze()
    for one in (instrument, resumed):
        probe.forget()
        row = next(row for row in rows(one, 5, model, probe) if row["layer"] == "hidden1")
        assert row["step_drift"] == pytest.approx((0.5 / std).mean().item())
        assert row["noise_to_drift"] == pytest.approx(row["noise_mean"] / row["step_drift"])
    assert one.state_dict() == {"before": {}}


def test_at_snapshots_drift_is_known_after_the_first(network_of):
    train = split(64)
    model = network_of("batch", "mlp")
    instrument = BatchNoise(when="snapshots")
    probe = run_around(instrument, model, train, split(20), total=9, snapshots=[0, 1, 5])
    assert [i for i in range(10) if instrument.due(i)] == [0, 1, 4, 5]
    assert all(math.isnan(row["step_drift"]) for row in rows(instrument, 0, model, probe))
    assert all(row["step_drift"] == 0 for row in rows(instrument, 1, model, probe))
    assert rows(instrument, 4, model, probe) == []
    assert all(row["step_drift"] == 0 for row in rows(instrument, 5, model, probe))


def test_units_that_do_not_vary_are_left_out(network_of):
    model = network_of("none", "mlp")
    with torch.no_grad():
        model.hidden1.linear.weight[:5] = 0
    found = noise_of(model, split(64), 8)
    assert found["hidden1", "linear", "population"]["units"] == 12 - 5
    assert found["hidden2", "linear", "population"]["units"] == 10
    with torch.no_grad():
        model.hidden1.linear.weight.zero_()
    row = noise_of(model, split(64), 8)["hidden1", "linear", "population"]
    assert row["units"] == 0
    assert math.isnan(row["noise_mean"])


def test_one_batch_says_nothing(network_of):
    assert noise_of(network_of("batch", "mlp"), split(30), 16) == {}


def test_batches_of_one(network_of):
    row = noise_of(network_of("layer", "mlp"), split(64), 1)["hidden1", "linear", "training"]
    assert row["noise_mean"] == pytest.approx(1, rel=0.02)
    assert row["batch_std"] == 0


def test_every_batch_starts_from_the_same_statistics(network_of):
    model = in_training(network_of("batch_renorm", "mlp"), split(40))
    counts = []
    model.hidden1.norm.register_forward_pre_hook(lambda norm, _: counts.append(norm.num_batches_tracked.item()))
    noise_of(model, split(64), 8)
    assert set(counts) == {2}


def test_noise_of_a_norm_differs_from_batch_to_batch(network_of):
    model = in_training(network_of("noisy_batch", "mlp", "norm.noise_spread=0"), split(40))
    found = noise_of(model, split(64), 8)
    assert found["hidden1", "normalized", "training"]["noise_mean"] > 0.1
