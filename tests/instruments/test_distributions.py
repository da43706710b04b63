"""The numbers of `distributions` against numpy, in every scheme and model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from looking import with_units
from torch import Tensor, nn

from normbench.instruments import BN_MODES, Distributions, Probe
from normbench.instruments.activations import BINS, COUNTS, LEVELS, QUANTILES, evenly_spaced_units, histogram
from normbench.norms import Recorded
from normbench.training.loop import Step


class Showing(Recorded):
    """A layer that shows its input."""

    def forward(self, x: Tensor) -> Tensor:
        self.show("linear", x)
        return x


def probe_of(model: nn.Module, images: Tensor) -> Probe:
    return Probe(model, images, torch.zeros(len(images), dtype=torch.long), 8)


def measured(instrument: Distributions, model: nn.Module, probe: Probe, units: int = 0) -> list[dict[str, Any]]:
    return list(with_units(instrument, units).measure(Step(0, None, None), model, probe))


def check(row: dict[str, Any], values: np.ndarray) -> None:
    """`row` describes `values`, says a second implementation."""
    assert set(row) == {"layer", "tensor", *Distributions.columns}
    values = values.astype(np.float64).ravel()
    assert (row["low"], row["high"]) == (values.min(), values.max())
    got = [row[name] for name in QUANTILES]
    assert got == pytest.approx(np.quantile(values, LEVELS), rel=1e-9, abs=1e-9)
    assert (got[0], got[32]) == (row["low"], row["high"])
    counts = [row[name] for name in COUNTS]
    assert all(type(count) is int for count in counts)
    assert sum(counts) == len(values)
    if row["low"] < row["high"]:
        wanted, edges = np.histogram(values, BINS)
        # float32 values and edges: one that lies on an edge to the last digits may count on either side of it
        close = sum((np.abs(values - edge) < 1e-6 * max(abs(edges[0]), abs(edges[-1]))).sum() for edge in edges[1:-1])
        assert np.abs(counts - wanted).sum() <= 2 * close


def test_every_scheme_in_every_model(norm_name, model_name, network_of, batch_of, device, monkeypatch):
    monkeypatch.setattr("normbench.instruments.probe.POOL", 10**9)  # all values, as the naive one
    model = network_of(norm_name, model_name, dropout=0.25).to(device)
    probe = probe_of(model, batch_of(40)[0].to(device))
    before = [tensor.clone() for tensor in model.state_dict().values()], [m.training for m in model.modules()]
    rows = measured(Distributions(bn_modes=BN_MODES), model, probe, units=3)
    assert all(torch.equal(a, b) for a, b in zip(before[0], model.state_dict().values(), strict=True))
    assert before[1] == [module.training for module in model.modules()]
    wanted = [(bn_mode, *key) for bn_mode in probe.bn_modes for key in probe.tensors(bn_mode)]
    assert [(row["bn_mode"], row["layer"], row["tensor"]) for row in rows if row["unit"] == ""] == wanted
    for row in rows:
        values = probe.tensors(row["bn_mode"])[row["layer"], row["tensor"]].cpu().numpy()
        check(row, values if row["unit"] == "" else values[:, row["unit"]])
    for layer, tensor in probe.tensors():
        units = [r["unit"] for r in rows if (r["layer"], r["tensor"]) == (layer, tensor) and r["unit"] != ""]
        assert units == evenly_spaced_units(probe.tensors()[layer, tensor].shape[1], 3)


def test_no_unit_is_tracked_unless_asked(network_of, batch_of):
    model = network_of("batch", "mlp")
    assert all(row["unit"] == "" for row in measured(Distributions(), model, probe_of(model, batch_of(20)[0])))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_tensor_that_is_not_finite_has_no_shape(bad):
    images = torch.randn(20, 4)
    images[3, 2] = bad
    model = Showing()
    whole, *units = measured(Distributions(), model, probe_of(model, images), units=4)
    names = ("low", "high", *QUANTILES, *COUNTS)
    assert all(math.isnan(whole[name]) for name in names)
    assert [math.isnan(row["low"]) for row in units] == [False, False, True, False]
    check(units[0], images[:, 0].numpy())


def test_constant_values_are_one_bin():
    model = Showing()
    (row,) = measured(Distributions(), model, probe_of(model, torch.full((20, 4), 0.1)))
    assert row["low"] == row["high"] == row["q16"] == pytest.approx(0.1)
    assert sorted(row[name] for name in COUNTS) == [0] * (BINS - 1) + [80]


def test_a_sample_of_a_large_tensor_keeps_its_shape(monkeypatch):
    values = torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    model = Showing()
    whole, sample = [], []
    for pool, rows in ((10**6, whole), (4000, sample)):
        monkeypatch.setattr("normbench.instruments.probe.POOL", pool)
        rows += measured(Distributions(), model, probe_of(model, values))
    assert sum(sample[0][name] for name in COUNTS) == 4000
    assert (sample[0]["low"], sample[0]["high"]) == (whole[0]["low"], whole[0]["high"])  # of all values
    assert sample[0]["q08"] == pytest.approx(whole[0]["q08"], abs=0.1)
    shares = [np.array([rows[0][name] for name in COUNTS]) / n for rows, n in ((whole, 40_000), (sample, 4000))]
    assert np.abs(shares[0] - shares[1]).sum() < 0.2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-64, 64), min_size=1, max_size=80))
def test_a_value_on_an_edge_counts_as_in_numpy(numbers):
    # From -64 to 64 each bin is 2 wide: whole numbers lie on edges, exactly.
    values = torch.tensor(sorted([*numbers, -64, 64]), dtype=torch.float32)
    assert histogram(values, -64.0, 64.0) == np.histogram(values.numpy(), BINS, (-64, 64))[0].tolist()
