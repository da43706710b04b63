"""The numbers of `activations` against a second, naive implementation in numpy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import with_units

from normbench.instruments import Activations, Probe
from normbench.instruments.activations import PERCENTILES, evenly_spaced_units
from normbench.instruments.probe import POOL, ascending, pooled, quantiles
from normbench.training.loop import Step

START = Step(0, None, None)


def naive(values: np.ndarray) -> dict[str, float]:
    """In float64."""
    flat = values.astype(np.float64).ravel()
    numbers: dict[str, float] = {"count": flat.size, "mean": flat.mean(), "std": flat.std()}
    with np.errstate(invalid="ignore"):
        numbers["skew"] = ((flat - flat.mean()) ** 3).mean() / np.float64(flat.std()) ** 3
    return numbers | {name: np.quantile(flat, level) for name, level in PERCENTILES.items()}


def test_numbers_are_those_of_a_naive_implementation(norm_name, model_name, network_of, batch_of, device, monkeypatch):
    monkeypatch.setattr("normbench.instruments.probe.POOL", 10**9)  # percentiles of all values, as the naive one
    model, (images, labels) = network_of(norm_name, model_name).to(device), batch_of(50)
    probe = Probe(model, images.to(device), labels.to(device), batch_size=8)
    rows = list(with_units(Activations(), 3).measure(START, model, probe))
    wanted = {
        (*key, bn_mode, ""): t.cpu().numpy() for bn_mode in probe.bn_modes for key, t in probe.tensors(bn_mode).items()
    }
    for key, t in probe.tensors().items():
        wanted |= {(*key, "probe", unit): t[:, unit].cpu().numpy() for unit in evenly_spaced_units(t.shape[1], 3)}
    assert {(row["layer"], row["tensor"], row["bn_mode"], row["unit"]) for row in rows} == wanted.keys()
    for row in rows:
        assert set(row) == {"layer", "tensor", *Activations.columns}
        expected = naive(wanted[row["layer"], row["tensor"], row["bn_mode"], row["unit"]])
        got = {name: row[name] for name in expected}
        if expected["std"] < 1e-6:  # rounding alone: a skew means nothing
            del expected["skew"], got["skew"]
        # float32 moments of up to 50 x 28 x 32 values near 1: errors of some 1e-6.
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True), row


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_no_longer_finite_is_not_passed_over(bad, showing):
    model, images = showing(), torch.randn(64, 4)
    images[5, 2] = bad
    (row,) = with_units(Activations()).measure(START, model, Probe(model, images, torch.zeros(64), 8))
    assert not np.isfinite(row["mean"])
    assert not np.isfinite(row["std"])


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    levels=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_quantiles_are_numpys(values, levels):
    got = quantiles(ascending(torch.tensor(values)), levels)
    # numpy interpolates from whichever side is nearer: the last digits may differ.
    wanted = np.quantile(np.array(values, dtype=np.float64), levels)
    assert got == pytest.approx(wanted, rel=1e-12, abs=1e-9)


def test_no_quantile_is_known_where_a_value_is_not():
    assert quantiles(ascending(torch.tensor([1.0, float("nan"), 0.0])), [0.0, 0.5]).isnan().all()


@pytest.mark.parametrize(("shape", "whole"), [((100, 8, 1), True), ((128, 4, 32), True), ((2000, 5, 32), False),
                                              ((300_000, 2, 1), False)])  # fmt: skip
def test_pooled_takes_the_same_places_at_each_snapshot(shape, whole):
    # Each value says where it comes from, and in the second snapshot is moved by a constant.
    places = torch.arange(int(np.prod(shape)), dtype=torch.float64).view(shape)
    torch.manual_seed(1)
    first = pooled(places)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = pooled(places + 0.5)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(second, first + 0.5)
    assert first.numel() == places.numel() if whole else POOL / 2 < first.numel() <= POOL
    assert first.unique().numel() == first.numel()  # no place twice
    units = (first.long() // shape[2]) % shape[1]
    assert (units.bincount() == first.numel() // shape[1]).all()  # each unit as often


def test_percentiles_of_a_pool_are_those_of_the_layer():
    values = torch.randn(1024, 16, 32, generator=torch.Generator().manual_seed(0))
    exact = np.quantile(values.numpy(), list(PERCENTILES.values()))
    assert quantiles(ascending(pooled(values)), list(PERCENTILES.values())) == pytest.approx(exact, abs=0.06)


@pytest.mark.parametrize(
    ("units", "count", "wanted"),
    [(100, 0, []), (100, 1, [0]), (100, 2, [0, 99]), (3, 9, [0, 1, 2]), (100, 100, list(range(100)))],
)
def test_tracked_units_are_evenly_spaced(units, count, wanted):
    assert evenly_spaced_units(units, count) == wanted


def test_is_due_at_the_snapshots(setting_of: Any):
    instrument = Activations()
    instrument.prepare(setting_of(total=100, snapshots=frozenset({0, 5, 100})))
    assert [index for index in range(101) if instrument.due(index)] == [0, 5, 100]
    instrument.when = "end"
    assert [index for index in range(101) if instrument.due(index)] == [100]
