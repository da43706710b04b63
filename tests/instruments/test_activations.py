"""The numbers of `activations` against a second, naive implementation in numpy and float64."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normbench.instruments import Activations
from normbench.instruments.activations import PERCENTILES, POOL, drift, pooled, quantiles
from normbench.instruments.observing import tensors_of
from normbench.norms.block import Observed
from normbench.training import Step

START = Step(0, None, None)


class Showing(Observed):
    """A layer that shows what it is told to: each unit's input times `scale` plus `shift`."""

    def __init__(self, scale: Any = 1.0, shift: Any = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = torch.as_tensor(scale), torch.as_tensor(shift)
        self.nothing = nn.Parameter(torch.zeros(()))  # a model has parameters

    def forward(self, x: Tensor) -> Tensor:
        view = (-1, *[1] * (x.dim() - 2))
        y = x * self.scale.expand(x.shape[1]).view(view) + self.shift.expand(x.shape[1]).view(view)
        self.show("linear", y)
        return y


def naive(now: np.ndarray, start: np.ndarray) -> dict[str, float]:
    """Unit by unit, in float64."""
    now, start = (np.moveaxis(a.astype(np.float64), 1, 0).reshape(a.shape[1], -1) for a in (now, start))
    moved = []
    for a, b in zip(now, start, strict=True):
        scale = np.sqrt((a.var() + b.var()) / 2)
        if scale > 0:
            moved.append(abs(a.mean() - b.mean()) / scale)
    numbers = {"units": len(now), "mean": now.mean(), "std": now.std(), "drift": np.mean(moved) if moved else np.nan}
    return numbers | {name: np.quantile(now, level) for name, level in PERCENTILES.items()}


def perturb(model: nn.Module) -> None:
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g).to(parameter.device)


def test_numbers_are_those_of_a_naive_implementation(norm_name, model_name, network_of, batch_of, device, monkeypatch):
    monkeypatch.setattr(
        "normbench.instruments.activations.POOL", 10**9
    )  # percentiles of all values, as in the naive one
    model, probe = network_of(norm_name, model_name).to(device), batch_of(200)[0].to(device)
    instrument = Activations()
    start = {key: value.cpu().numpy() for key, value in tensors_of(model, probe).items()}
    first = list(instrument.measure(START, model, probe))
    perturb(model)
    now = {key: value.cpu().numpy() for key, value in tensors_of(model, probe).items()}
    later = list(instrument.measure(Step(7, None, None), model, probe))
    for rows, values in ((first, start), (later, now)):
        assert [(row["layer"], row["tensor"]) for row in rows] == list(values)
        for row in rows:
            key = row["layer"], row["tensor"]
            assert set(row) == {"layer", "tensor", *Activations.columns}
            # float32 means of up to 200 x 28 x 8 values near 1: errors of some 1e-6.
            wanted = naive(values[key], start[key])
            got = {name: row[name] for name in wanted}
            assert got == pytest.approx(wanted, rel=2e-4, abs=2e-5, nan_ok=True), key
    assert all(row["drift"] == 0 or np.isnan(row["drift"]) for row in first)
    assert any(row["drift"] > 0.01 for row in later)


@pytest.mark.parametrize("shape", [(50, 6), (50, 6, 3, 3), (50, 6, 4)])
def test_drift_is_measured_in_standard_deviations(shape):
    probe = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    drifts = []
    for factor in (1.0, 10.0, 1e-3):
        instrument = Activations()
        (row,) = instrument.measure(START, Showing(factor), probe)
        assert row["drift"] == 0
        (row,) = instrument.measure(START, Showing(2 * factor, 3 * factor), probe)
        drifts.append(row["drift"])
    assert drifts == pytest.approx([drifts[0]] * 3, rel=1e-4)
    # Unit variance that becomes 4: scale sqrt(2.5), shift 3.
    assert drifts[0] == pytest.approx(3 / 2.5**0.5, rel=0.15)


def test_units_that_are_constant_at_both_times_are_left_out():
    probe = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([1.0, 0.0, 1.0, 0.0])
    instrument = Activations()
    list(instrument.measure(START, Showing(scale, torch.tensor([0.0, 0.1, 0.0, 7.0])), probe))
    (row,) = instrument.measure(START, Showing(scale, torch.tensor([2.0, 0.3, 2.0, 9.0])), probe)
    std = probe[:, ::2].std(0, correction=0)
    assert row["drift"] == pytest.approx((2 / std).mean().item(), rel=1e-5)
    (row,) = instrument.measure(START, Showing(torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.zeros(4)), probe)
    assert row["drift"] > 0.01  # the second woke up, and counts


def test_nothing_moves_where_all_units_are_constant():
    probe = torch.randn(64, 4)
    instrument = Activations()
    (row,) = instrument.measure(START, Showing(0.0, 0.1), probe)
    assert np.isnan(row["drift"])
    assert (row["mean"], row["std"], row["p50"]) == (pytest.approx(0.1), 0, pytest.approx(0.1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_unit_that_is_no_longer_finite_is_not_passed_over(bad):
    # A mean over the units that still are finite would report a calm layer in a network that has diverged.
    probe = torch.randn(64, 4)
    instrument = Activations()
    list(instrument.measure(START, Showing(), probe))
    (row,) = instrument.measure(START, Showing(torch.tensor([1.0, 1.0, 1.0, bad])), probe)
    assert not np.isfinite(row["mean"])
    assert not np.isfinite(row["drift"])


@settings(max_examples=40, deadline=None)
@given(units=st.integers(1, 20), seed=st.integers(0, 2**31), dead=st.integers(0, 20))
def test_drift_is_the_formula(units, seed, dead):
    rng = np.random.default_rng(seed)
    mean, start_mean = rng.normal(size=(2, units))
    var, start_var = rng.uniform(0.1, 4, size=(2, units))
    var[:dead] = start_var[:dead] = 0
    got = drift(*(torch.tensor(a, dtype=torch.float64) for a in (mean, var, start_mean, start_var))).item()
    moved = [
        abs(mean[j] - start_mean[j]) / ((var[j] + start_var[j]) / 2) ** 0.5
        for j in range(units)
        if var[j] + start_var[j] > 0
    ]
    assert got == pytest.approx(np.mean(moved) if moved else np.nan, rel=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    levels=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
def test_quantiles_are_numpys(values, levels):
    got = quantiles(torch.tensor(values), levels)
    # numpy interpolates from whichever side is nearer: the last digits may differ.
    wanted = np.quantile(np.array(values, dtype=np.float64), levels)
    assert got == pytest.approx(wanted, rel=1e-12, abs=1e-9)


def test_quantiles_on_the_device_are_those_of_the_cpu(device):
    values = torch.randn(1000, 7, generator=torch.Generator().manual_seed(0))
    assert quantiles(values.to(device), [0, 0.01, 0.5, 1]) == quantiles(values, [0, 0.01, 0.5, 1])


@pytest.mark.parametrize(("shape", "whole"), [((100, 8), True), ((512, 4, 8, 8), True), ((2000, 5, 8, 9), False),
                                              ((300_000, 2), False)])  # fmt: skip
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
    assert first.shape[1] == shape[1]
    assert first.numel() == places.numel() if whole else POOL / 2 < first.numel() <= POOL
    assert first.unique().numel() == first.numel()  # no place twice
    # A row is one example at one position, all its units.
    flat = places.flatten(2) if len(shape) > 2 else places[..., None]
    rows = {tuple(row) for row in flat.movedim(1, 2).reshape(-1, shape[1])[:, :2].tolist()}
    assert all(tuple(row) in rows for row in first[:200, :2].tolist())


def test_percentiles_of_a_pool_are_those_of_the_layer():
    values = torch.randn(1024, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = np.quantile(values.numpy(), list(PERCENTILES.values()))
    assert quantiles(pooled(values), list(PERCENTILES.values())) == pytest.approx(exact, abs=0.02)


def test_state_goes_through_a_checkpoint(network_of, batch_of):
    model, probe = network_of("batch", "mlp"), batch_of(50)[0]
    undisturbed, resumed = Activations(), Activations()
    list(undisturbed.measure(START, model, probe))
    buffer = io.BytesIO()
    torch.save(undisturbed.state_dict(), buffer)
    buffer.seek(0)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    perturb(model)
    later = Step(9, None, None)
    assert list(resumed.measure(later, model, probe)) == list(undisturbed.measure(later, model, probe))
    state = undisturbed.state_dict()
    state.clear()
    assert undisturbed.state_dict()  # what was handed out is a copy


def test_is_due_on_its_schedule():
    schedule: Callable[[int, int], list[int]] = lambda total, snapshots: [0, snapshots, total]  # noqa: E731
    instrument = Activations(snapshots=5, schedule=schedule)
    instrument.prepare(100)
    assert [index for index in range(101) if instrument.due(index)] == [0, 5, 100]
