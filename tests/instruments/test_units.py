"""Shares of units, likeness of images: against numpy, unit by unit and pair by pair, and for known matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from small_run import rows, run_around, split
from torch import Tensor, nn

from normbench.instruments import Units
from normbench.instruments.units import likeness, share_outside, shares
from normbench.norms import Block


def naive_shares(a: np.ndarray, tau: float) -> list[float]:
    """Zeros, dead, dormant, value by value and unit by unit."""
    units = [a[:, j].ravel() for j in range(a.shape[1])]
    activity = [np.abs(unit).mean() for unit in units]
    dead = [len(set(unit.tolist())) == 1 for unit in units]
    dormant = [one <= tau * np.mean(activity) for one in activity]
    return [float(np.mean(part)) for part in (a.ravel() == 0, dead, dormant)]


def naive_likeness(a: np.ndarray) -> tuple[float, float]:
    rows = [row / np.linalg.norm(row) for row in a.astype(np.float64) if np.linalg.norm(row) > 0]
    cosines = np.array([[float(x @ y) for y in rows] for x in rows])
    pairs = cosines[~np.eye(len(rows), dtype=bool)]
    return float(pairs.mean()), float(np.trace(cosines) / np.linalg.norm(cosines, 2))


@pytest.mark.parametrize("shape", [(40, 6, 1), (40, 6, 9), (12, 30, 1), (5, 3, 2)])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.SELU()])
def test_numbers_are_those_of_a_naive_implementation(shape, activation):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=g)
    z[:, 0] = -3.0  # a unit that says nothing
    z[:, 1] *= 0.01
    z[2] = -1.0  # an image to which no ReLU responds
    a = activation(z)
    assert shares(a, 0.025) == pytest.approx(naive_shares(a.numpy(), 0.025))
    assert likeness(a.flatten(1)) == pytest.approx(naive_likeness(a.flatten(1).numpy()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("matrix", "cosine", "rank"),
    [
        (torch.eye(8), 0, 8),  # all different
        (torch.ones(8, 5), 1, 1),  # all alike
        (torch.eye(2).repeat_interleave(4, 0), 3 / 7, 2),  # two kinds, four of each
        (torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), -1 / 3, 2),
        (torch.tensor([[2.0, 0], [0, 0], [0, 5]]), 0, 2),  # an image of zeros is left out
    ],
)
def test_known_matrices(matrix, cosine, rank):
    assert likeness(matrix) == pytest.approx((cosine, rank), abs=1e-6)
    assert likeness(matrix * 100) == pytest.approx((cosine, rank), abs=1e-6)


@pytest.mark.parametrize("matrix", [torch.zeros(4, 3), torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
                                    torch.tensor([[1.0, math.nan], [1.0, 2.0]])])  # fmt: skip
def test_likeness_of_fewer_than_two_images_is_not_known(matrix):
    assert all(map(math.isnan, likeness(matrix)))


def test_saturated_is_what_lies_outside():
    values = torch.tensor([-0.98, -0.5, 0.04, 0.5, 0.96, 0.98])
    assert share_outside(values, (-0.97, 0.97)) == pytest.approx(2 / 6)
    assert share_outside(values, (0.05, 0.95)) == pytest.approx(5 / 6)
    assert share_outside(values, None) == ""


def looked_at(model: nn.Module, images: Any) -> dict[str, Any]:
    instrument = Units()
    probe = run_around(instrument, model, images, images, snapshots=[0])
    return {row["layer"]: row for row in rows(instrument, 0, model, probe)}


def test_half_of_relus_are_zero_after_batch_norm_at_the_start(network_of):
    for row in looked_at(network_of("batch", "mlp", hidden=[100, 100, 100]), split(512)).values():
        assert row["zeros"] == pytest.approx(0.5, abs=0.03)
        assert (row["dead"], row["dormant"], row["units"]) == (0, 0, 100)


def test_units_that_are_pushed_down_are_dead(network_of):
    model = network_of("none", "mlp", hidden=[10, 10])
    with torch.no_grad():
        model.hidden1.linear.bias[:3] = -1e3
        model.hidden2.linear.bias.fill_(-1e6)
    found = looked_at(model, split(64))
    assert found["hidden1"]["dead"] == pytest.approx(0.3)
    assert found["hidden1"]["dormant"] >= 0.3
    assert (found["hidden2"]["dead"], found["hidden2"]["zeros"], found["hidden2"]["dormant"]) == (1, 1, 1)


class Scaled(nn.Module):
    """`z`, whatever the image."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.z[: len(x)]


@pytest.mark.parametrize(("activation", "edge"), [(nn.Sigmoid(), math.log(0.95 / 0.05)), (nn.Tanh(), math.atanh(0.97))])
def test_saturated_layers(activation, edge):
    z = torch.linspace(-2 * edge, 2 * edge, 400).view(100, 4)
    row = looked_at(nn.Sequential(Block(Scaled(z), None, activation)), split(100))["0"]
    assert row["saturated"] == pytest.approx(0.5, abs=0.01)


def test_where_saturation_has_no_bounds_it_is_empty(network_of):
    assert {row["saturated"] for row in looked_at(network_of("batch", "rnn"), split(20)).values()} == {""}
    assert {row["saturated"] for row in looked_at(network_of("batch", "mlp"), split(20)).values()} == {""}


def test_likeness_of_a_nearly_dead_layer() -> None:
    """A few directions and many zeros: single precision finds no eigenvalues there (LAPACK, some of these seeds)."""
    for seed in range(300):
        g = torch.Generator().manual_seed(seed)
        few = torch.randn(256, 1 + seed % 5, generator=g) @ torch.randn(1 + seed % 5, 100, generator=g)
        a = few.relu() * (torch.rand(100, generator=g) < 0.3) * (torch.rand(256, 1, generator=g) > 0.3)
        alive = a[a.norm(dim=1) > 0]
        u = (alive / alive.norm(dim=1, keepdim=True)).double()
        _, rank = likeness(a)
        assert rank == pytest.approx(len(u) / torch.linalg.svdvals(u)[0].item() ** 2, rel=1e-4) or not len(alive)
