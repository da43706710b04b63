"""Activations, distributions, time steps and units against naive implementations in numpy and float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from short_run import Images, Shown, few_pairs, made_up, short_run
from torch import Tensor, nn

from normbench.instruments import BN_MODES, Activations, Distributions, TimeSteps, Units
from normbench.instruments.activations import (
    BINS,
    COUNTS,
    LEVELS,
    PERCENTILES,
    QUANTILES,
    evenly_spaced_units,
    histogram,
    likeness,
    shares,
)
from normbench.instruments.probe import POOL, ascending, pooled, quantiles
from normbench.norms import Block


def shown(values: Tensor, **options: Any) -> Any:
    """A run whose one layer shows these values."""
    images = Images(values, torch.zeros(len(values), dtype=torch.long))
    return short_run(Shown(), updates=None, validation=images, **options)


# ---- every number, of layers and units


def naive_moments(values: np.ndarray) -> dict[str, float]:
    numbers: dict[str, float] = {"count": values.size, "mean": values.mean(), "std": values.std()}
    with np.errstate(invalid="ignore"):
        numbers["skew"] = ((values - values.mean()) ** 3).mean() / np.float64(values.std()) ** 3
    return numbers | {name: np.quantile(values, level) for name, level in PERCENTILES.items()}


def check_distribution(row: dict[str, Any], values: np.ndarray) -> None:
    assert (row["low"], row["high"]) == (values.min(), values.max())
    got = [row[name] for name in QUANTILES]
    assert got == pytest.approx(np.quantile(values, LEVELS), rel=1e-9, abs=1e-9)
    if row["unit"] != "":
        assert not set(COUNTS) & set(row)
        return
    counts = [row[name] for name in COUNTS]
    assert all(type(count) is int for count in counts)
    assert sum(counts) == len(values)
    if row["low"] < row["high"]:
        wanted, edges = np.histogram(values, BINS)
        # float32 values and edges: one that lies on an edge to the last digits may count on either side of it
        close = sum((np.abs(values - edge) < 1e-6 * max(abs(edges[0]), abs(edges[-1]))).sum() for edge in edges[1:-1])
        assert np.abs(counts - wanted).sum() <= 2 * close


def naive_units(a: np.ndarray, tau: float = 0.025, images: int = 12) -> dict[str, float]:
    """Of [N, C, P]: value by value, unit by unit, pair of the first images by pair."""
    units = [a[:, j].ravel() for j in range(a.shape[1])]
    activity = [np.abs(unit).mean() for unit in units]
    rows = [row / np.linalg.norm(row) for row in a[:images].reshape(-1, a[0].size) if np.linalg.norm(row) > 0]
    cosines = np.array([[float(x @ y) for y in rows] for x in rows])
    return {
        "zeros": (a == 0).mean(),
        "dead": np.mean([len(set(unit.tolist())) == 1 for unit in units]),
        "dormant": np.mean([one <= tau * np.mean(activity) for one in activity]),
        "cosine": cosines[~np.eye(len(rows), dtype=bool)].mean() if len(rows) > 1 else math.nan,
        "stable_rank": np.trace(cosines) / np.linalg.norm(cosines, 2) if len(rows) > 1 else math.nan,
    }


@few_pairs
def test_every_number_is_that_of_a_naive_implementation(norm, network, network_of, device, monkeypatch):
    monkeypatch.setattr("normbench.instruments.probe.POOL", 10**9)  # of all values, as the naive ones
    run = short_run(network_of(norm, network, dropout=0.25), device=device, units=3)
    wanted: dict[tuple[Any, ...], np.ndarray] = {}
    for bn_mode in run.probe.bn_modes:
        for key, t in run.probe.tensors(bn_mode).items():
            values = t.cpu().double().numpy()
            wanted[(*key, bn_mode, "")] = values
            if bn_mode == "probe":
                wanted |= {(*key, bn_mode, u): values[:, u] for u in evenly_spaced_units(values.shape[1], 3)}
    for instrument in (Activations(), Distributions(bn_modes=BN_MODES)):
        rows = {tuple(row[name] for name in ("layer", "tensor", "bn_mode", "unit")): row
                for row in run.measure(instrument)}  # fmt: skip
        assert list(rows) == list(wanted)
        for key, row in rows.items():
            if isinstance(instrument, Distributions):
                check_distribution(row, wanted[key].ravel())
                continue
            expected = naive_moments(wanted[key].ravel())
            if expected["std"] < 1e-6:  # rounding alone: a skew means nothing
                del expected["skew"]
            got = {name: row[name] for name in expected}
            # float32 moments of up to 50 x 28 x 32 values near 1: errors of some 1e-6.
            assert got == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True), key
    units = {row["layer"]: row for row in run.measure(Units(images=12))}
    assert list(units) == [layer for layer, tensor in run.probe.tensors() if tensor == "activation"]
    for layer, row in units.items():
        values = wanted[layer, "activation", "probe", ""]
        got = {name: row[name] for name in naive_units(values)}
        assert got == pytest.approx(naive_units(values), rel=1e-3, abs=1e-4, nan_ok=True), layer
        assert (row["units"], row["saturated"]) == (values.shape[1], "")
    times = run.measure(TimeSteps())
    steps = [(key, t) for key in wanted if key[0] == "cell" and key[3] == "" for t in range(8)]
    assert [((row["layer"], row["tensor"], row["bn_mode"], ""), row["time"]) for row in times] == steps
    for row, (key, t) in zip(times, steps, strict=True):
        values = wanted[key][..., t]
        assert (row["mean"], row["std"]) == pytest.approx((values.mean(), values.std()), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_longer_finite_is_not_passed_over(bad):
    images = torch.randn(20, 4)
    images[3, 2] = bad
    run = shown(images, units=4)
    names = {"activations": ("mean", "std"), "distributions": ("low", "high", *QUANTILES, *COUNTS)}
    for instrument in (Activations(), Distributions()):
        rows = run.measure(instrument)
        finite = [{math.isfinite(row[name]) for name in names[instrument.name] if name in row} for row in rows]
        assert finite == [{False}, {True}, {True}, {False}, {True}]
    assert quantiles(ascending(images[:, 2]), [0.0, 0.5]).isnan().any() or math.isinf(bad)


def test_a_sequence_that_diverges_shows_when(network_of):
    images = made_up(20)
    images.images[3, 0, 4] = torch.nan  # the fifth row of an image
    rows = short_run(network_of("none", "rnn", cell="tanh"), validation=images).measure(TimeSteps())
    assert [math.isnan(row["mean"]) for row in rows if row["tensor"] == "activation"] == [False] * 4 + [True] * 4


# ---- quantiles, pools, histograms


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    levels=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_quantiles_are_numpys(values, levels):
    # numpy interpolates from whichever side is nearer: the last digits may differ.
    wanted = np.quantile(np.array(values, dtype=np.float64), levels)
    assert quantiles(ascending(torch.tensor(values)), levels) == pytest.approx(wanted, rel=1e-12, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-64, 64), min_size=1, max_size=80))
def test_a_value_on_an_edge_counts_as_in_numpy(numbers):
    # From -64 to 64 each bin is 2 wide: whole numbers lie on edges, exactly.
    values = torch.tensor(sorted([*numbers, -64, 64]), dtype=torch.float32)
    assert sorted(histogram(torch.full((80,), 0.1), 0.1, 0.1)) == [0] * (BINS - 1) + [80]  # constant: one bin
    assert histogram(values, -64.0, 64.0) == np.histogram(values.numpy(), BINS, (-64, 64))[0].tolist()


@pytest.mark.parametrize(("shape", "whole"), [((100, 8, 1), True), ((2000, 5, 32), False), ((300_000, 2, 1), False)])
def test_pooled_takes_the_same_places_at_each_snapshot(shape, whole):
    # Each value says where it comes from, and in the second snapshot is moved by a constant.
    places = torch.arange(math.prod(shape), dtype=torch.float64).view(shape)
    first = pooled(places)
    torch.manual_seed(2)
    assert torch.equal(pooled(places + 0.5), first + 0.5)
    assert first.numel() == places.numel() if whole else POOL / 2 < first.numel() <= POOL
    assert first.unique().numel() == first.numel()  # no place twice
    units = (first.long() // shape[2]) % shape[1]
    assert (units.bincount() == first.numel() // shape[1]).all()  # each unit as often


def test_a_sample_of_a_large_tensor_keeps_its_shape(monkeypatch):
    run, found = shown(torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))), []
    for pool in (10**6, 4000):
        monkeypatch.setattr("normbench.instruments.probe.POOL", pool)
        found += run.measure(Distributions())
    whole, sample = found
    assert sum(sample[name] for name in COUNTS) == 4000
    assert (sample["low"], sample["high"]) == (whole["low"], whole["high"])  # of all values
    assert sample["q08"] == pytest.approx(whole["q08"], abs=0.1)
    assert sum(abs(sample[name] / 4000 - whole[name] / 40_000) for name in COUNTS) < 0.2


# ---- units


def of(a: Tensor) -> dict[str, float]:
    of_stack = shares(a[None], 0.025) | likeness(a[None].flatten(2))
    return {name: number for name, (number,) in of_stack.items()}


@pytest.mark.parametrize(
    ("matrix", "cosine", "rank"),
    [
        ([[1, 2], [2, 4], [3, 6]], 1, 1),
        ([[1, 0], [0, 1]], 0, 2),
        ([[1, 0], [0, 0], [0, 5]], 0, 2),  # an image of zeros is left out
        ([[1, 2], [0, 0]], math.nan, math.nan),  # of fewer than two images nothing is known
        ([[1, math.nan], [1, 2]], math.nan, math.nan),
    ],
)
def test_likeness_of_known_matrices(matrix, cosine, rank):
    for factor in (1, 100):
        found = of(factor * torch.tensor(matrix, dtype=torch.float32).unsqueeze(2))
        assert (found["cosine"], found["stable_rank"]) == pytest.approx((cosine, rank), abs=1e-6, nan_ok=True)


def test_likeness_of_a_nearly_dead_layer():
    """A few directions and many zeros: single precision finds no eigenvalues there (LAPACK, some of these seeds)."""
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        few = torch.randn(256, 1 + seed % 5, generator=g) @ torch.randn(1 + seed % 5, 100, generator=g)
        a = few.relu() * (torch.rand(100, generator=g) < 0.3) * (torch.rand(256, 1, generator=g) > 0.3)
        alive = a[a.norm(dim=1) > 0]
        u = (alive / alive.norm(dim=1, keepdim=True)).double()
        (rank,) = likeness(a[None])["stable_rank"]
        assert rank == pytest.approx(len(u) / torch.linalg.svdvals(u)[0].item() ** 2, rel=1e-4) or not len(alive)


def test_units_that_are_pushed_down_are_dead(network_of):
    model = network_of("batch", "mlp", hidden=[100, 100])
    at_start = short_run(model, updates=None, validation=300).measure(Units())
    assert [row["zeros"] for row in at_start] == pytest.approx([0.5, 0.5], abs=0.03)  # of ReLUs after batch norm
    assert {(row["dead"], row["dormant"], row["units"]) for row in at_start} == {(0, 0, 100)}
    model = network_of("none", "mlp", hidden=[10, 10])
    with torch.no_grad():
        model.hidden1.linear.bias[:3] = -1e3
        model.hidden2.linear.bias.fill_(-1e6)
    first, second = short_run(model, updates=None).measure(Units())
    assert first["dead"] == pytest.approx(0.3)
    assert first["dormant"] >= 0.3
    assert (second["dead"], second["zeros"], second["dormant"]) == (1, 1, 1)


class Scaled(nn.Module):
    """`z`, whatever the image."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = nn.Parameter(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.z[: len(x)]


@pytest.mark.parametrize(("activation", "edge"), [(nn.Sigmoid(), math.log(0.95 / 0.05)), (nn.Tanh(), math.atanh(0.97))])
def test_saturated_layers(activation, edge):
    z = torch.linspace(-2 * edge, 2 * edge, 160).view(40, 4)
    (row,) = short_run(nn.Sequential(Block(Scaled(z), None, activation)), updates=None).measure(Units())
    assert row["saturated"] == pytest.approx(0.5, abs=0.02)
