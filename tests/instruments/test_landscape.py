"""The landscape against plain loops over deep copies."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from short_run import ShortRun, short_run
from torch import Tensor, nn

from normbench.instruments import Landscape
from normbench.noise import next_draw
from normbench.training.loop import Step, Update


def loss_and_gradient(run: ShortRun, moved: Tensor | None = None) -> tuple[float, np.ndarray]:
    """Of a deep copy whose parameters have moved by so much."""
    model = copy.deepcopy(run.model)
    model.zero_grad()
    at = 0
    for parameter in model.parameters() if moved is not None else ():
        parameter.data += moved[at : at + parameter.numel()].view_as(parameter)
        at += parameter.numel()
    n, losses = run.update.accumulate, []
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


@pytest.mark.parametrize("model", ["mlp", "rnn"])
def test_as_plain_loops(norm_name, model, network_of, batch_of):
    assert_as_naive(short_run(network_of(norm_name, model, dropout=0.25).double(), batch_of), 0.05)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_lr_is_that_of_the_schedule_and_the_gradient_that_of_all_parts(optimizer, network_of, batch_of):
    update = Update(lr=lambda index: 0.1 / (index + 1), clip_norm=1e-3, accumulate=2)
    for norm in ("batch", "weight"):
        run = short_run(network_of(norm, "cnn", dropout=0.5).double(), batch_of, optimizer, update)
        assert_as_naive(run, 0.1 / 3)


class Bowl(nn.Module):
    """Two logits, +-theta: the loss of one label is log(1 + exp(-2 theta))."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((self.theta, -self.theta)).expand(len(x), 2)


def test_a_loss_worked_by_hand(batch_of):
    run = short_run(Bowl(), batch_of, "sgd", updates=0)
    run.step = Step(0, (batch_of(4)[0], torch.zeros(4, dtype=torch.long)), None)
    row = next(iter(run.measure(Landscape())))
    g = -1.0  # d/dtheta log(1 + exp(-2 theta)) = -2 / (1 + exp(2 theta))
    there = [-2 / (1 + math.exp(2 * eta)) for eta in np.linspace(0.05, 0.4, 8)]
    assert row["loss"] == pytest.approx(math.log(2))
    assert row["norm"] == pytest.approx(1)
    assert row["loss_min"] == pytest.approx(math.log(1 + math.exp(-0.8)))
    assert row["loss_max"] == pytest.approx(math.log(1 + math.exp(-0.1)))
    assert row["change_max"] == pytest.approx(max(abs(there_ - g) for there_ in there))
    assert row["smoothness"] == pytest.approx(max(abs(t - g) / e for t, e in zip(there, np.linspace(0.05, 0.4, 8))))  # noqa: B905


def test_no_rows_after_the_last_step(network_of, batch_of):
    run = short_run(network_of("batch", "mlp"), batch_of)
    run.step = Step(10, None, None)
    assert run.measure(Landscape()) == []


def test_where_the_learning_rate_is_0_there_is_no_slope_to_speak_of(network_of, batch_of):
    run = short_run(network_of("batch", "mlp"), batch_of, update=Update(lr=lambda _: 0.0))
    row = list(run.measure(Landscape()))[1]
    assert row["loss"] == row["loss_min"] == row["loss_max"]
    assert math.isnan(row["smoothness"])


def test_a_diverged_network_gives_nan(network_of, batch_of):
    run = short_run(network_of("batch", "mlp"), batch_of)
    with torch.no_grad():
        run.model.output.linear.bias.fill_(math.nan)
    for row in run.measure(Landscape()):
        assert all(math.isnan(row[name]) for name in Landscape.columns if name not in ("kind", "lr"))
