"""The rehearsed step is the step: weights to the bit, gradients as a plain backward pass has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from looking import assert_same
from short_run import effective_weights, everything, plain_weights, short_run
from torch import nn

from normbench.instruments.lookahead import in_training, lookahead_step, scratch_parameters, weight_gradients
from normbench.norms import blocks
from normbench.training.loop import Update
from normbench.training.optimizers import OPTIMIZERS


class Broken(Exception):
    pass


def rehearsed(run: Any) -> dict[str, torch.Tensor]:
    with lookahead_step(run.model, run.optimizer, run.update, run.step.batch, run.step.index):
        return {name: value.clone() for name, value in run.model.state_dict().items()}


def really_taken(run: Any) -> dict[str, torch.Tensor]:
    run.optimizer.zero_grad()
    run.update.backward(run.model, run.step.batch)
    run.update.apply(run.model, run.optimizer, run.step.index)
    return run.model.state_dict()


def test_it_is_the_next_step_to_the_bit(norm_name, model_name, network_of, batch_of, device):
    for optimizer in OPTIMIZERS if model_name in ("mlp", "rnn") else ["adam"]:
        model = network_of(norm_name, model_name, dropout=0.5)
        run = short_run(model, batch_of, optimizer, device=device, weight_decay=0.01)
        before = everything(run)
        seen = rehearsed(run)
        assert_same(before, everything(run))
        assert_same(seen, really_taken(run))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("updates", [0, 2])
def test_schedule_clipping_and_accumulation_are_part_of_it(optimizer, updates, network_of, batch_of):
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=0.01, accumulate=2)
    run = short_run(network_of("batch", "mlp", dropout=0.5), batch_of, optimizer, update, updates=updates)
    before = everything(run)
    seen = rehearsed(run)
    assert_same(before, everything(run))
    assert_same(seen, really_taken(run))
    assert not torch.equal(before["state hidden1.linear.weight"], seen["hidden1.linear.weight"])


@pytest.mark.parametrize("updates", [0, 2])
def test_afterwards_all_is_as_before_even_if_something_breaks(updates, network_of, batch_of):
    run = short_run(network_of("weight_mean_only", "rnn"), batch_of, updates=updates)
    before = everything(run)
    with pytest.raises(Broken), lookahead_step(run.model, run.optimizer, run.update, run.step.batch, run.step.index):
        raise Broken
    assert_same(before, everything(run))
    images, labels = run.step.batch
    with (
        pytest.raises(RuntimeError),
        lookahead_step(run.model, run.optimizer, run.update, (images[..., 1:], labels), 2),
    ):
        pass
    assert_same(before, everything(run))
    with scratch_parameters(run.model) as parameters, torch.no_grad():
        for parameter in parameters:
            parameter.fill_(7)
    assert_same(before, everything(run))


def test_passes_in_training_draw_the_same_masks(norm_name, model_name, network_of, batch_of):
    model = network_of(norm_name, model_name, dropout=0.5)
    torch.manual_seed(3)
    outputs = []
    for _ in range(2):
        with in_training(model):
            outputs.append(model(batch_of(8)[0]).detach())
    assert torch.equal(*outputs)
    assert torch.equal(outputs[0], model(batch_of(8)[0]))  # the very next pass


def test_a_part_that_someone_froze_stays_in_evaluation_mode(network_of):
    model = network_of("batch", "mlp")
    model.hidden1.eval()
    with in_training(model):
        assert not model.hidden1.norm.training
        assert model.hidden2.norm.training


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_those_of_the_weights_that_the_network_multiplies_by(
    norm_name, model_name, accumulate, network_of, batch_of
):
    model = network_of(norm_name, model_name, dropout=0.5).double()
    run = short_run(model, batch_of, update=Update(accumulate=accumulate))
    before = everything(run)
    seen = weight_gradients(model, blocks(model), run.update, run.step.batch)
    assert_same(before, everything(run))
    plain = plain_weights(model)
    plain.zero_grad()
    run.update.backward(plain, run.step.batch)
    wanted = effective_weights(plain)
    assert seen.keys() == wanted.keys()
    for key, weight in wanted.items():
        torch.testing.assert_close(seen[key], weight.grad, rtol=1e-9, atol=1e-12)


def test_frozen_weights_are_left_out(network_of, batch_of):
    run = short_run(network_of("none", "mlp"), batch_of)
    for parameter in run.model.hidden1.parameters():
        parameter.requires_grad_(False)
    seen = weight_gradients(run.model, blocks(run.model), run.update, run.step.batch)
    assert list(seen) == [("hidden2", "w"), ("output", "w")]
    assert weight_gradients(run.model, [("hidden1", run.model.hidden1)], run.update, run.step.batch) == {}
    assert weight_gradients(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), [], run.update, run.step.batch) == {}
