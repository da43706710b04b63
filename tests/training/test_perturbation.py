"""A weight perturbation: what is multiplied, which losses are reported, and that a resumed run has had it once."""

from __future__ import annotations

import itertools
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from normbench.errors import ConfigError, Stopped
from normbench.experiment import execute
from normbench.norms import blocks
from normbench.training.perturbation import Perturbation

WORDS = ["dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8", "max_steps=30",
         "instruments=none"]  # fmt: skip


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_effective_weight_is_multiplied_and_the_losses_are_those_on_the_batch(
    norm_name, factor, network_of, batch_of
):
    model, (x, y) = network_of(norm_name, "mlp"), batch_of(16)
    before, [(name, block), *_] = deepcopy(model), blocks(model)
    weight = block.linear.weight.detach().clone()
    found = Perturbation(3, factor, 0).apply(model, (x, y))
    torch.testing.assert_close(block.linear.weight.detach(), factor * weight)
    assert model.training
    assert found["block"] == name
    for when, network in (("before", before), ("after", model)):
        with torch.no_grad():
            expected = F.cross_entropy(deepcopy(network).eval()(x), y).item()
        assert found[f"evaluation_{when}"] == pytest.approx(expected, rel=1e-5)
    old = dict(before.named_parameters())
    unchanged = [n for n, p in model.named_parameters() if torch.equal(p, old[n])]
    assert len(unchanged) == len(old) - 1


def test_batch_norm_in_training_does_not_notice_and_its_running_statistics_do(network_of, batch_of):
    model, batch = network_of("batch", "mlp"), batch_of(64)
    for _ in range(200):
        model(batch[0])  # the running statistics settle
    found = Perturbation(0, 10.0, 0).apply(model, batch)
    assert found["training_after"] == pytest.approx(found["training_before"], rel=1e-3)
    assert found["evaluation_before"] == pytest.approx(found["training_before"], rel=0.1)
    assert found["evaluation_after"] > 1.5 * found["evaluation_before"]


def test_a_resumed_run_is_perturbed_once(cell_with, tmp_path):
    words = ["norm=none", "perturb_step=15", "perturb_factor=3", "lr=0.01"]
    undisturbed = execute(cell_with(*WORDS)(*words))
    cell = cell_with(*WORDS)(*words, results_dir=str(tmp_path / "other"))
    for stop_at in (15, 16, 22):  # 15: with the checkpoint written right after the perturbation
        calls = itertools.count()
        done = 0 if stop_at == 15 else {16: 15, 22: 16}[stop_at]
        with pytest.raises(Stopped, match=f"step {stop_at}"):
            execute(cell, stop=lambda calls=calls, at=stop_at - done: next(calls) == (at if at == 15 else at - 1))
    resumed = execute(cell)
    assert resumed.summary["perturbation"] == undisturbed.summary["perturbation"]
    a, b = (torch.load(run.folder / "model.pt", weights_only=True) for run in (undisturbed, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["perturb_step=30"], "below the run's 30 updates"),
        (["perturb_step=3", "perturb_block=9"], r"one of 0 \(hidden1\), .*: got 9"),
        (["perturb_step=3", "model=rnn", "perturb_block=1"], "Recurrent cells can't be perturbed"),
        (["perturb_step=-1"], "0 or more"),
        (["perturb_factor=0"], "positive"),
    ],
)
def test_an_impossible_perturbation_is_refused(words, message, cell_with):
    with pytest.raises(ConfigError, match=message):
        execute(cell_with(*WORDS)("norm=none", *words))
