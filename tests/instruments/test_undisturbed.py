"""Instruments that take gradients and steps of their own leave everything as it was: training goes on to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from looking import assert_same
from short_run import ShortRun, everything, short_run

from normbench.instruments import Fit, Gradients, GradientShift, Instrument, Landscape, Parameters
from normbench.training.loop import Step, Update
from normbench.training.optimizers import OPTIMIZERS

EVERY: list[Callable[[], Instrument]] = [Fit, Gradients, GradientShift, Landscape, Parameters]


def assert_undisturbed(make: Callable[[], ShortRun]) -> None:
    watched, alone = make(), make()
    before = everything(watched)
    for instrument in EVERY:
        watched.measure(instrument())
    assert_same(before, everything(watched))
    for run in (watched, alone):  # with the gradients of the step before still there, and random numbers of now
        torch.manual_seed(5)
        run.optimizer.zero_grad()
        run.update.backward(run.model, run.step.batch)
        run.update.apply(run.model, run.optimizer, run.step.index)
    for key, value in everything(alone).items():
        if not key.startswith(("storage", "group")):
            assert_same({key: value}, {key: everything(watched)[key]})


def test_every_scheme_in_every_model(norm_name, model_name, network_of, batch_of, device):
    assert_undisturbed(lambda: short_run(network_of(norm_name, model_name, dropout=0.5), batch_of, device=device))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("updates", [0, 2])
def test_every_optimizer(optimizer, updates, network_of, batch_of):
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=0.1, accumulate=2)
    for norm in ("batch", "weight_mean_only"):
        assert_undisturbed(
            lambda norm=norm: short_run(network_of(norm, "mlp"), batch_of, optimizer, update, updates=updates)
        )


@pytest.mark.parametrize("instrument", EVERY)
def test_a_diverged_network_too(instrument, norm_name, network_of, batch_of):
    run = short_run(network_of(norm_name, "cnn"), batch_of)
    with torch.no_grad():
        for parameter in run.model.conv1.parameters():
            parameter.fill_(math.nan)
    before = everything(run)
    rows = run.measure(instrument())
    assert any(math.isnan(value) for row in rows for value in row.values() if isinstance(value, float))
    assert_same(before, everything(run))


@pytest.mark.parametrize("instrument", EVERY)
def test_after_the_last_step(instrument, network_of, batch_of):
    run = short_run(network_of("batch", "rnn"), batch_of)
    run.step = Step(10, None, None)
    before = everything(run)
    run.measure(instrument())
    assert_same(before, everything(run))
