"""Gradient shift and the landscape against plain loops over deep copies."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from short_run import ShortRun, assert_same, effective_weights, everything, few_pairs, plain_weights, short_run
from torch import Tensor, nn

from normbench.instruments import GradientShift, Landscape
from normbench.instruments.landscape import extreme_eigenvalues
from normbench.models import LSTMCell
from normbench.noise import next_draw
from normbench.norms import NormScheme, blocks
from normbench.training.loop import Update

# ---- gradient shift


def gradients(model: nn.Module, run: ShortRun) -> dict[tuple[str, str], Tensor]:
    """dL/dw, by a plain backward pass of a network whose weights are plain parameters."""
    model = plain_weights(model)
    model.zero_grad()
    n = run.setting.update.accumulate
    with torch.random.fork_rng():
        for images, labels in zip(*(part.chunk(n) for part in run.step.batch), strict=True):
            for name, buffer in model.named_buffers():  # of blocks of another network, too, which next_draw can't know
                if name.endswith("noise_draw"):
                    buffer += 1
            (F.cross_entropy(model(images), labels) / n).backward()
    return {key: weight.grad for key, weight in effective_weights(model).items()}


def naive_shift(run: ShortRun) -> dict[tuple[str, str], dict[str, float]]:
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


def assert_shift_as_naive(run: ShortRun) -> None:
    rows, wanted = run.measure(GradientShift()), naive_shift(run)
    assert [(row["layer"], row["tensor"]) for row in rows] == list(wanted)
    for row in rows:
        assert set(row) == {"layer", "tensor", *GradientShift.columns}
        numbers = {name: row[name] for name in GradientShift.columns}
        assert numbers == pytest.approx(wanted[row["layer"], row["tensor"]], rel=1e-6, abs=1e-10)


@few_pairs
def test_as_a_network_put_together_block_by_block(norm, network, network_of):
    model = network_of(norm, network, dropout=0.25).double()
    run = short_run(model)
    assert_shift_as_naive(run)
    rows = run.measure(GradientShift())
    assert rows[0]["layer"] != next(name for name, _ in blocks(model))  # the first is 0 by definition
    assert any(row["relative"] > 0.01 for row in rows)


def test_a_network_with_branches(network_of):
    assert_shift_as_naive(short_run(network_of("batch", "resnet").double()))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_step_is_the_runs_own(optimizer, network_of):
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=0.5, accumulate=2)
    for norm in ("batch", "weight"):
        assert_shift_as_naive(short_run(network_of(norm, "mlp", dropout=0.5).double(), optimizer, update))


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


@pytest.mark.parametrize("norm", ["batch", "weight"])
def test_both_weights_of_a_cell_have_rows(norm, scheme_of):
    torch.manual_seed(0)
    run = short_run(Stacked(scheme_of(norm)).double())
    assert_shift_as_naive(run)
    places = [(row["layer"], row["tensor"]) for row in run.measure(GradientShift())]
    assert places == [("cell", "input.w"), ("cell", "hidden.w"), ("output", "w")]


def test_nothing_moves_where_the_learning_rate_is_0(network_of):
    for row in short_run(network_of("batch", "mlp"), update=Update(lr=lambda _: 0.0)).measure(GradientShift()):
        assert (row["distance"], row["relative"]) == (0, 0)
        assert row["cosine"] == pytest.approx(1)


# ---- landscape


def loss_and_gradient(run: ShortRun, moved: Tensor | None = None) -> tuple[float, np.ndarray]:
    """Of a deep copy whose parameters have moved by so much."""
    model = copy.deepcopy(run.model)
    model.zero_grad()
    at = 0
    for parameter in model.parameters() if moved is not None else ():
        parameter.data += moved[at : at + parameter.numel()].view_as(parameter)
        at += parameter.numel()
    n, losses = run.setting.update.accumulate, []
    with torch.random.fork_rng():
        for images, labels in zip(*(part.chunk(n) for part in run.step.batch), strict=True):
            next_draw(model)
            losses.append(F.cross_entropy(model(images), labels) / n)
            losses[-1].backward()
    g = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])
    return sum(loss.item() for loss in losses), g.numpy()


def naive(run: ShortRun, etas: list[float], lr: float) -> dict[str, float]:
    loss, g = loss_and_gradient(run)
    losses, changes, smoothness = [], [], []
    for eta in etas:
        there, gradient = loss_and_gradient(run, torch.from_numpy(-eta * g))
        losses.append(there)
        changes.append(np.sqrt(((gradient - g) ** 2).sum()))
        smoothness.append(changes[-1] / np.sqrt(((eta * g) ** 2).sum()))
    return {"lr": lr, "loss": loss, "norm": np.sqrt((g**2).sum()), "loss_min": min(losses), "loss_max": max(losses),
            "change_min": min(changes), "change_max": max(changes), "smoothness": max(smoothness),
            "lr_smoothness": lr * max(smoothness)}  # fmt: skip


def assert_as_naive(run: ShortRun, lr: float) -> None:
    rows = {row.pop("kind"): row for row in run.measure(Landscape())}
    assert all((row.pop("layer"), row.pop("tensor")) == ("", "") for row in rows.values())
    absolute = naive(run, [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4], lr)
    relative = naive(run, [lr * 4 ** (-1 + 2 * i / 7) for i in range(8)], lr)
    assert rows["absolute"] == pytest.approx(absolute, rel=1e-6)
    assert rows["relative"] == pytest.approx(relative, rel=1e-6)
    assert set(rows) == {"absolute", "relative"}


@pytest.mark.parametrize(
    ("norm", "model"),
    [("batch", "mlp"), ("weight", "mlp"), ("noisy_batch", "cnn"), ("selu", "mlp"), ("weight_mean_only", "rnn")],
)
def test_as_plain_loops(norm, model, network_of):
    assert_as_naive(short_run(network_of(norm, model, dropout=0.25).double()), 0.05)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_lr_is_that_of_the_schedule_and_the_gradient_that_of_all_parts(optimizer, network_of):
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=1e-3, accumulate=2)
    for norm in ("batch", "weight"):
        run = short_run(network_of(norm, "cnn", dropout=0.5).double(), optimizer, update)
        assert_as_naive(run, 0.1 / 3)


def test_where_the_learning_rate_is_0_there_is_no_slope_to_speak_of(network_of):
    run = short_run(network_of("batch", "mlp"), update=Update(lr=lambda _: 0.0))
    row = list(run.measure(Landscape()))[1]
    assert row["loss"] == row["loss_min"] == row["loss_max"]
    assert math.isnan(row["smoothness"])


# ---- hessian


def whole_hessian(run: ShortRun) -> np.ndarray:
    """Column by column, by central differences of gradients: torch's second derivatives may be wrong."""
    size = sum(parameter.numel() for parameter in run.model.parameters())
    moves = 1e-6 * torch.eye(size, dtype=torch.float64)
    found = np.stack([loss_and_gradient(run, move)[1] - loss_and_gradient(run, -move)[1] for move in moves]) / 2e-6
    return (found + found.T) / 2


@pytest.mark.parametrize(
    ("norm", "model", "accumulate"),
    [("batch", "mlp", 1), ("weight", "mlp", 1), ("noisy_batch", "mlp", 2), ("layer", "rnn", 1), ("batch", "cnn", 2)],
)
def test_eigenvalues_are_those_of_the_whole_hessian(norm, model, accumulate, network_of):
    options = {"rnn": {"units": 3}, "cnn": {"channels": [2, 2]}}.get(model, {"hidden": [5, 3], "dropout": 0.25})
    shape = (1, 8, 8) if model == "cnn" else (1, 4, 4)
    network = network_of(norm, model, shape=shape, **options).double()
    run = short_run(network, update=Update(accumulate=accumulate), shape=shape)
    wanted = np.linalg.eigvalsh(whole_hessian(run))
    before = everything(run.model, run.optimizer)
    row = run.measure(Landscape(lanczos=200))[2]
    assert_same(before, everything(run.model, run.optimizer))
    assert row["eigenvalue"] == pytest.approx(wanted[-1], rel=1e-6)
    assert row["eigenvalue_min"] == pytest.approx(wanted[0], rel=1e-5)
    assert row["eigenvalue_error"] < 1e-6 * wanted[-1]
    few = run.measure(Landscape(lanczos=5))[2]
    assert few["eigenvalue"] <= wanted[-1] + 1e-6
    assert np.abs(wanted - few["eigenvalue"]).min() <= few["eigenvalue_error"] + 1e-6
    images, labels = run.step.batch
    single = replace(
        run, model=copy.deepcopy(run.model).float(), step=replace(run.step, batch=(images.float(), labels))
    )
    assert single.measure(Landscape(lanczos=40))[2]["eigenvalue"] == pytest.approx(wanted[-1], rel=1e-3)


def test_eigenvalues_of_matrices_that_are_known():
    a = torch.diag(torch.tensor([3.0, 3.0, -7.0, 0.5], dtype=torch.float64))
    assert extreme_eigenvalues(lambda v: a @ v, a[0], 9) == pytest.approx((3, -7, 0), abs=1e-12), "ends by itself"
    assert extreme_eigenvalues(lambda v: 0 * v, a[0], 9) == (0, 0, 0)
    assert all(math.isnan(number) for number in extreme_eigenvalues(lambda v: v / 0, a[0], 9))
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="lanczos must be a whole number, 0 or more"):
            Landscape(lanczos=wrong)
