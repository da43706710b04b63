"""Gradient shift against a naive loop that puts the network together block by block."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from short_run import ShortRun, effective_weights, plain_weights, short_run
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.instruments import GradientShift
from normbench.models import LSTMCell
from normbench.norms import NormScheme, blocks
from normbench.training.loop import Step, Update


def gradients(model: nn.Module, run: ShortRun) -> dict[tuple[str, str], Tensor]:
    """dL/dw, by a plain backward pass of a network whose weights are plain parameters."""
    model = plain_weights(model)
    model.zero_grad()
    n = run.update.accumulate
    with torch.random.fork_rng():
        for images, labels in zip(*(part.chunk(n) for part in run.step.batch), strict=True):
            for name, buffer in model.named_buffers():  # of blocks of another network, too, which next_draw can't know
                if name.endswith("noise_draw"):
                    buffer += 1
            (F.cross_entropy(model(images), labels) / n).backward()
    return {key: weight.grad for key, weight in effective_weights(model).items()}


def naive(run: ShortRun) -> dict[tuple[str, str], dict[str, float]]:
    now, after = run.model, run.stepped()[0]
    for name, buffer in after.named_buffers():
        buffer.copy_(now.get_buffer(name))
    before, found = gradients(now, run), {}
    names = [name for name, block in blocks(now) if list(block.parameters())]
    for i, name in enumerate(names[1:], start=1):
        network = copy.deepcopy(now)
        for earlier in names[:i]:
            network.set_submodule(earlier, copy.deepcopy(after.get_submodule(earlier)))
        changed = gradients(network, run)
        for key in before:
            if key[0] == name:
                a, b = before[key].flatten(), changed[key].flatten()
                found[key] = {"distance": (a - b).norm(), "relative": (a - b).norm() / a.norm(), "norm": a.norm(),
                              "cosine": (a * b).sum() / a.norm() / b.norm()}  # fmt: skip
    return {key: {name: float(number) for name, number in numbers.items()} for key, numbers in found.items()}


def assert_as_naive(run: ShortRun) -> None:
    rows, wanted = run.measure(GradientShift()), naive(run)
    assert [(row["layer"], row["tensor"]) for row in rows] == list(wanted)
    for row in rows:
        assert set(row) == {"layer", "tensor", *GradientShift.columns}
        numbers = {name: row[name] for name in GradientShift.columns}
        assert numbers == pytest.approx(wanted[row["layer"], row["tensor"]], rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet", "rnn"])  # deeper ones take their depth squared
def test_as_a_network_put_together_block_by_block(norm_name, model, network_of, batch_of):
    model = network_of(norm_name, model, dropout=0.25).double()
    run = short_run(model, batch_of)
    assert_as_naive(run)
    rows = run.measure(GradientShift())
    assert rows[0]["layer"] != next(name for name, _ in blocks(model))  # the first is 0 by definition
    assert any(row["relative"] > 0.01 for row in rows)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop"])
def test_the_step_is_the_runs_own(optimizer, network_of, batch_of):
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=0.5, accumulate=2)
    for norm in ("batch", "weight"):
        assert_as_naive(short_run(network_of(norm, "mlp", dropout=0.5).double(), batch_of, optimizer, update))


class Stacked(nn.Module):
    """A block, a recurrent cell and an output: the cell is not the first."""

    def __init__(self, scheme: NormScheme) -> None:
        super().__init__()
        self.rows = scheme.block(nn.Linear(64, 64), nn.Tanh)
        self.cell = LSTMCell(scheme, inputs=8, units=6, steps=8)
        self.output = scheme.block(nn.Linear(6, 5), normalize=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rows(x.flatten(1)).unflatten(1, (8, 8)).transpose(0, 1)  # [N, T * C] -> [T, N, C]
        return self.output(self.cell(x, (torch.randn_like(x[0, :, :6]), torch.zeros_like(x[0, :, :6]))))


def test_both_weights_of_a_cell_have_rows(norm_name, scheme_of, batch_of):
    torch.manual_seed(0)
    try:
        run = short_run(Stacked(scheme_of(norm_name)).double(), batch_of)
        assert_as_naive(run)
    except Unsupported as reason:
        pytest.skip(str(reason))
    places = [(row["layer"], row["tensor"]) for row in run.measure(GradientShift())]
    assert places == [("cell", "input.w"), ("cell", "hidden.w"), ("output", "w")]


def test_nothing_moves_where_the_learning_rate_is_0(network_of, batch_of):
    for row in short_run(network_of("batch", "mlp"), batch_of, update=Update(lr=lambda _: 0.0)).measure(
        GradientShift()
    ):
        assert (row["distance"], row["relative"]) == (0, 0)
        assert row["cosine"] == pytest.approx(1)


def test_no_rows_after_the_last_step_or_without_blocks(network_of, batch_of):
    run = short_run(network_of("batch", "mlp"), batch_of)
    run.step = Step(10, None, None)
    assert run.measure(GradientShift()) == []
    plain: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    assert short_run(plain, batch_of).measure(GradientShift()) == []


def test_a_diverged_network_gives_nan(network_of, batch_of):
    run = short_run(network_of("batch", "mlp"), batch_of)
    with torch.no_grad():
        run.model.hidden1.linear.weight.fill_(math.nan)
    rows = run.measure(GradientShift())
    assert [row["layer"] for row in rows] == ["hidden2", "output"]
    assert all(math.isnan(row[name]) for row in rows for name in GradientShift.columns)
