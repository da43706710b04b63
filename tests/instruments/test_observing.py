"""The law: observing changes nothing, whatever the instrument, the scheme and the model."""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from short_run import EVERY, ShortRun, assert_same, everything, made_up, short_run, through_a_checkpoint
from torch import nn

from normbench.data import canonical, prepare
from normbench.experiment import execute
from normbench.instruments import Instrument, Landscape, MemoryTime, Statistics, TrainTestShift
from normbench.norms import average_statistics, exact_statistics
from normbench.training.evaluation import Sample, evaluate_with_kind, sample_batches, training_images
from normbench.training.loop import Step

RNG = np.random.default_rng(0)
SPLITS = [(RNG.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8), np.arange(n) % 5) for n in (100, 20)]
SOURCE = canonical("x", "abcde", *SPLITS)


def instruments() -> list[Instrument]:
    few: dict[Any, dict[str, Any]] = {Landscape: {"lanczos": 2}}
    few[TrainTestShift] = {"corruptions": ["noise"], "severities": [2], "images": [4, 8], "examples": 20}
    return [kind(**few.get(kind, {})) for kind in EVERY]


def in_the_middle(model: nn.Module, device: Any = "cpu", **options: Any) -> ShortRun:
    """A run on augmented images, with gradients there and a part in evaluation mode, as if someone had frozen it."""
    data = prepare(SOURCE, name="x", validation=40, augment="translate", device=device)
    run = short_run(model, train=data.train, validation=data.validation, device=device, positions=6, **options)
    model.output.eval()  # type: ignore[operator, union-attr]
    return run


def test_every_scheme_in_every_model(norm_name, model_name, network_of, device):
    observed, alone = (in_the_middle(network_of(norm_name, model_name, dropout=0.25), device) for _ in range(2))
    resumed = instruments()
    for one, other in zip(instruments(), resumed, strict=True):
        before = everything(observed.model, observed.optimizer)
        if one.remembers:
            observed.measure(one, 9)
            through_a_checkpoint(one, other)
        rows = observed.measure(one, 10)
        assert_same(before, everything(observed.model, observed.optimizer))
        assert rows or one.name in ("time_steps", "statistics"), one.name
        for row in rows if one.name != "activations" else ():  # a skew of equal values is NaN
            if row.get("units") != 0:  # of units that vary
                unknown = {k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
                allowed = {"var_ratio", "var_error"} if "mean_only" in norm_name else set()
                assert unknown <= allowed | {"noise_to_drift"}, one.name  # nothing has moved
        if one.remembers:
            assert str(rows) == str(observed.measure(other, 10)), one.name  # NaN equals NaN
    for run in (observed, alone):  # with the gradients of the step before still there
        torch.manual_seed(5)
        run.take_step()
    wanted, found = (everything(run.model, run.optimizer) for run in (alone, observed))
    assert_same(*({k: v for k, v in s.items() if not k.startswith("parameter")} for s in (wanted, found)))


@pytest.mark.parametrize(("norm", "model"), [("batch", "mlp"), ("noisy_batch", "cnn"), ("batch", "rnn")])
def test_whole_runs_end_with_the_same_weights(norm, model, cell_with, small_options, tmp_path):
    """With all instruments and with none, through the files: dropout, noise and augmentation on."""
    words = ["max_steps=4", "dataset.augment=translate", "dataset.size=8", "dataset.examples=150", "batch_size=8",
             "dataset.validation=40", f"model={model}", f"norm={norm}"]  # fmt: skip
    weights = []
    every = {one.name: {"_target_": f"normbench.instruments.{type(one).__name__}"} for one in instruments()}
    for asked in (every, {}):
        cell = cell_with(*words)("instruments=full")
        config = copy.deepcopy(cell.config)
        config["model"] |= small_options(config["model"]) | ({"dropout": 0.25} if "dropout" in config["model"] else {})
        config["instruments"] |= {"snapshots": 3, "units": 2, "positions": 3, "measure": asked}
        run = execute(replace(cell, name=str(len(asked)), config=config))
        tables = {path.stem for path in (run.folder / "measured").glob("*.csv") if path.stat().st_size}
        assert asked.keys() - {"time_steps"} <= tables
        weights.append(torch.load(run.folder / "model.pt", weights_only=True))
    assert_same(*weights)


class Broken(Exception):
    pass


@pytest.mark.parametrize("passes", [0, 1, 3, 6])
def test_even_if_something_breaks(passes, network_of):
    run = in_the_middle(network_of("batch_renorm", "cnn"))
    for instrument in instruments():
        calls = iter(range(passes))

        def count(*_: Any, calls: Any = calls) -> None:
            if next(calls, None) is None:
                raise Broken

        hook = run.model.output.register_forward_hook(count)  # type: ignore[operator, union-attr]
        before = everything(run.model, run.optimizer)
        with suppress(Broken):
            run.measure(instrument, 10)
        assert_same(before, everything(run.model, run.optimizer))
        hook.remove()


@pytest.mark.parametrize(("norm", "model"), [("batch", "cnn"), ("weight", "mlp"), ("layer", "rnn")])
def test_a_diverged_network_gives_nan_and_is_left_alone(norm, model, network_of):
    run = in_the_middle(network_of(norm, model))
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.fill_(math.nan)
    before = everything(run.model)
    for instrument in instruments():
        rows = run.measure(instrument, 10)
        numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
        assert any(map(math.isnan, numbers)) or not rows or isinstance(instrument, MemoryTime), instrument.name
    assert_same(before, everything(run.model))


def test_after_the_last_step_and_of_models_without_blocks(network_of):
    run = in_the_middle(network_of("batch", "rnn"))
    run.step = Step(10, None, None)
    before = everything(run.model)
    rows = {instrument.name: run.measure(instrument) for instrument in instruments()}
    assert rows["gradient_shift"] == rows["landscape"] == []
    assert {row["update_ratio"] for row in rows["gradients"]} == {None}
    assert_same(before, everything(run.model))
    plain = short_run(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    shown = {one.name: plain.measure(one) for one in instruments() if not isinstance(one, TrainTestShift)}
    assert {name for name, rows in shown.items() if rows} == {"fit", "landscape", "memory_time"}


def test_only_the_layers_that_are_asked_for(network_of):
    run = short_run(network_of("batch", "mlp"), layers=["hidden2"])
    for instrument in instruments():
        if instrument.name in ("activations", "distributions", "shift", "units", "batch_noise", "statistics"):
            assert {row["layer"] for row in run.measure(instrument, 10)} <= {"hidden2", ""}, instrument.name


def test_samples_of_the_training_images_are_drawn_by_the_runs_seed(network_of):
    """The same for every scheme; for another seed others, so that an interval over seeds covers what they change."""
    run = in_the_middle(network_of("batch", "mlp"))
    for instrument in instruments():
        rows = {}
        for seed in (0, 1):
            run.setting = replace(run.setting, seed=seed, images=24)
            rows[seed] = str(run.measure(instrument, 10))
            assert str(run.measure(instrument, 10)) == rows[seed] or instrument.remembers, instrument.name
        sampling = instrument.name in ("batch_noise", "fit", "statistics", "train_test_shift")
        assert (rows[0] != rows[1]) == sampling or instrument.name == "shift", instrument.name


@pytest.mark.parametrize("kind", ["averages", "precise"])
def test_what_a_run_is_evaluated_with_is_of_images_drawn_by_its_seed(network_of, kind, monkeypatch):
    model, data = network_of("batch", "mlp"), made_up(400)
    monkeypatch.setattr(training_images, "__defaults__", (80,))  # of 400
    losses = [evaluate_with_kind(model, kind, data, made_up(50, seed=1), 8, seed)[0] for seed in (0, 0, 1, 2)]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_averages_of_batches_vary_between_seeds_as_the_samples_do(network_of):
    """Over seeds they are right on average, in the first norm; with one sample for all seeds each is off alike."""
    data, seen = made_up(400), {}
    run = short_run(network_of("batch", "mlp"), updates=None, train=data)
    for seed in range(12):
        run.setting = replace(run.setting, seed=seed, images=80)
        rows = run.measure(Statistics(), 10)
        wanted = sample_batches(data, 80, 80, torch.device("cpu"), seed)[0][0]
        exact = exact_statistics(run.model, wanted)["hidden1.norm"]
        averages = average_statistics(run.model, Sample(data, 80, 8, torch.device("cpu"), seed=seed))["hidden1.norm"]
        (row,) = [r for r in rows if (r["layer"], r["statistics"]) == ("hidden1", "averages")]
        seen[seed] = row["var_ratio"]
        assert row["var_ratio"] == pytest.approx((averages.var / exact.var).mean().item(), rel=1e-3)
    assert len(set(seen.values())) == 12
    assert np.mean(list(seen.values())) == pytest.approx(80 / 79, abs=0.01)  # unbiased, over the biased one of 80
