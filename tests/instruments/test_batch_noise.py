"""Noise of mini-batches: the law for independent images, and batch by batch in numpy."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from short_run import Images, made_up, short_run, through_a_checkpoint
from torch import Tensor, nn

from normbench.instruments import BatchNoise
from normbench.norms import Block, blocks, exact_statistics, load_statistics, use_batch_statistics
from normbench.training.evaluation import sample_batches

CPU = torch.device("cpu")


def noise_of(
    model: nn.Module, train: Any, batch_size: int, updates: int | None = None, **options: Any
) -> dict[Any, Any]:
    run = short_run(model, batch_size=batch_size, updates=updates, train=train, validation=32)
    rows = run.measure(BatchNoise(**options), 10)
    return {(row["layer"], row["tensor"], row["lower"]): row for row in rows}


@pytest.mark.parametrize(("batch_size", "factor"), [(2, 1 / math.sqrt(math.pi)), (4, math.sqrt(3 / 4) * 0.921318)])
def test_standard_deviation_of_small_gaussian_batches(batch_size, factor):
    # E[s_b] / s for the biased s_b: .5642, and sqrt(3/4) c_4 = .7979 (c_4 is a table's)
    model = nn.Sequential(nn.Flatten(), Block(nn.Linear(64, 60)))
    row = noise_of(model, 400 * batch_size, batch_size, batches=400)["1", "linear", "population"]
    assert row["batch_std"] == pytest.approx(factor, rel=0.02)
    assert row["noise_mean"] == pytest.approx(batch_size**-0.5, rel=0.05)
    assert (row["batches"], row["units"]) == (400, 60)


@pytest.fixture(scope="module")
def many() -> Images:
    return made_up(5000)


@pytest.mark.parametrize("batch_size", [2, 16])
def test_the_law_and_what_happens(batch_size, many, network_of):
    model = network_of("batch", "mlp", hidden=[40, 40, 40])
    found = noise_of(model, many, batch_size, updates=20, batches=200)
    relative = {key: row["noise_mean"] * math.sqrt(batch_size) for key, row in found.items()}
    for (layer, _, lower), row in found.items():
        if lower == "population":
            assert row["noise_mean"] * math.sqrt(batch_size) == pytest.approx(1, abs=0.1), layer
            assert row["noise_median"] == pytest.approx(row["noise_mean"], rel=0.1)
    training = [value for key, value in relative.items() if key[1:] == ("linear", "training")]
    assert training[0] == pytest.approx(1, abs=0.1)
    assert max(training[1:]) < 0.8
    assert max(value for key, value in relative.items() if key[1:] == ("normalized", "training")) < 1e-4


def test_without_norms_over_the_batch_both_are_the_same(many, network_of):
    found = noise_of(network_of("layer", "mlp"), many, 16)
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


@pytest.mark.parametrize(
    ("norm", "network"), [("none", "mlp"), ("batch", "cnn"), ("mean_only", "rnn"), ("batch_renorm", "cnn")]
)
def test_numbers_are_those_of_a_naive_implementation(norm, network, network_of):
    run = short_run(network_of(norm, network, quiet=True).double(), train=70)
    batches = [images for images, _ in sample_batches(run.setting.train, 40, 8, CPU)]
    population, training = (copy.deepcopy(run.model).eval() for _ in range(2))
    load_statistics(population, exact_statistics(population, torch.cat(batches)))
    use_batch_statistics(training)
    for row in run.measure(BatchNoise(batches=5), 10):
        key = row["layer"], row["tensor"]
        other = copy.deepcopy({"population": population, "training": training}[row["lower"]])
        start = copy.deepcopy(other.state_dict())
        other.register_forward_pre_hook(partial(restore, start))  # batch renorm's averages would move on
        wanted = naive(other, batches, key, bool(run.probe.times(key[0])))
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6, abs=1e-9), row


def restore(state: dict[str, Tensor], model: nn.Module, _: Any) -> None:
    model.load_state_dict(state)


def test_batches_are_drawn_at_random_once_and_none_twice():
    train = made_up(50)
    batches = sample_batches(train, 48, 8, CPU)
    together = torch.cat([images for images, _ in batches]).flatten(1)
    assert [len(labels) for _, labels in batches] == [8] * 6
    assert len(together.unique(dim=0)) == 48
    assert not torch.equal(together, train.images[:48].flatten(1))
    assert torch.equal(together, torch.cat([images for images, _ in sample_batches(train, 48, 8, CPU)]).flatten(1))


def test_drift_is_that_of_the_last_update(network_of):
    run = short_run(network_of("none", "mlp").double(), updates=None, snapshots=[0, 1, 5])
    at_end, at_snapshots = BatchNoise(), BatchNoise(when="snapshots")
    assert run.measure(at_end, 9) == []
    assert all(math.isnan(row["step_drift"]) for row in run.measure(at_snapshots, 0))
    assert all(row["step_drift"] == 0 for row in run.measure(at_snapshots, 1))
    assert [i for i in range(11) if at_end.due(i)] == [9, 10]
    assert [i for i in range(11) if at_snapshots.due(i)] == [0, 1, 4, 5]
    resumed = through_a_checkpoint(at_end, BatchNoise())
    with torch.no_grad():
        run.model.hidden1.linear.bias += 0.5
        std = run.probe.tensors()["hidden1", "linear"].std(0, correction=0).squeeze()
    for one in (at_end, resumed):
        row = next(row for row in run.measure(one, 10) if row["layer"] == "hidden1")
        assert row["step_drift"] == pytest.approx((0.5 / std).mean().item())
        assert row["noise_to_drift"] == pytest.approx(row["noise_mean"] / row["step_drift"])
    assert one.state_dict() == {"before": {}}


def test_units_that_do_not_vary_are_left_out(network_of):
    model = network_of("none", "mlp")
    with torch.no_grad():
        model.hidden1.linear.weight[:5] = 0
    found = noise_of(model, 64, 8)
    assert found["hidden1", "linear", "population"]["units"] == 12 - 5
    assert found["hidden2", "linear", "population"]["units"] == 10
    with torch.no_grad():
        model.hidden1.linear.weight.zero_()
    row = noise_of(model, 64, 8)["hidden1", "linear", "population"]
    assert row["units"] == 0
    assert math.isnan(row["noise_mean"])


def test_one_batch_says_nothing_and_batches_of_one_say_something(network_of):
    assert noise_of(network_of("batch", "mlp"), 30, 16) == {}
    row = noise_of(network_of("layer", "mlp"), 64, 1)["hidden1", "linear", "training"]
    assert row["noise_mean"] == pytest.approx(1, rel=0.02)
    assert row["batch_std"] == 0


def test_every_batch_starts_from_the_same_statistics_and_has_noise_of_its_own(network_of):
    model, counts = network_of("batch_renorm", "mlp"), []
    model.hidden1.norm.register_forward_pre_hook(lambda norm, _: counts.append(norm.num_batches_tracked.item()))
    noise_of(model, 64, 8)
    assert set(counts) == {0}
    found = noise_of(network_of("noisy_batch", "mlp", "norm.noise_spread=0"), 64, 8, updates=2)
    assert found["hidden1", "normalized", "training"]["noise_mean"] > 0.1
