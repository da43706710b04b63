"""Distances between the values of units: against numpy and scipy unit by unit, and their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from torch import Tensor

from normbench.instruments.distances import BINS, NUMBERS, Values, distances, jensen_shannon
from normbench.instruments.probe import ascending, by_unit

OF_STATISTIC = {"median": np.median, "mean": np.mean, "p90": lambda values: np.quantile(values, 0.9)}


def values_of(values: Tensor) -> Values:
    return Values.of(values, ascending(by_unit(values)))


def between(now: Tensor, then: Tensor, every: int = 1) -> tuple[int, dict[str, float]]:
    [found] = distances([(values_of(now), values_of(then))], [every])
    return int(found.pop("constant")), found


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def naive(now: np.ndarray, then: np.ndarray, every: int = 1) -> tuple[int, dict[str, float]]:
    """[N, C, P] twice, unit by unit, in float64."""
    found: dict[str, list[float]] = {name.rsplit("_", 1)[0]: [] for name in NUMBERS}
    constant = 0
    for unit in range(now.shape[1]):
        a, b = (values[:, unit].astype(np.float64).ravel() for values in (now, then))
        s, s_ = (0.0 if z.std() <= 1e-6 * abs(z.mean()) else z.std() for z in (a, b))
        if s == s_ == 0:
            constant += 1
            continue
        scale = math.sqrt((s**2 + s_**2) / 2)
        w1, moved = wasserstein_distance(a, b), np.abs(a - b).mean()
        found["w1"].append(w1)
        found["moved"].append(moved)
        found["w1_scaled"].append(w1 / scale)
        found["moved_scaled"].append(moved / scale)
        found["drift_scaled"].append(abs(a.mean() - b.mean()) / scale)
        if s > 0 and s_ > 0:
            found["log_std"].append(abs(math.log(s / s_)))
        if unit % every == 0:
            limits = min(a.min(), b.min()), max(a.max(), b.max())
            p, q = (np.histogram(z, BINS, limits)[0] / len(z) for z in (a, b))
            found["js"].append(jensenshannon(p, q) ** 2)
    split = {name: name.rsplit("_", 1) for name in NUMBERS}
    return constant, {name: OF_STATISTIC[s](found[q]) if found[q] else math.nan for name, (q, s) in split.items()}


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(2, 60), units=st.integers(1, 12), positions=st.integers(1, 4), seed=st.integers(0, 10**6),
    constant=st.sets(st.integers(0, 11)), woken=st.sets(st.integers(0, 11)), every=st.integers(1, 4),
)  # fmt: skip
def test_numbers_are_those_of_a_naive_implementation(images, units, positions, seed, constant, woken, every):
    now, then = 3 * normal(images, units, positions, seed=seed) + 1, normal(images, units, positions, seed=seed + 1)
    for unit in {unit for unit in constant if unit < units}:
        then[:, unit] = 0.3
        if unit not in woken:
            now[:, unit] = -0.7
    got, wanted = between(now, then, every), naive(now.numpy(), then.numpy(), every)
    assert got[0] == wanted[0]
    assert tuple(got[1]) == NUMBERS
    assert got[1] == pytest.approx(wanted[1], rel=1e-9, abs=1e-12, nan_ok=True)


def test_known_distances(device):
    values = normal(300, 5, 2, dtype=torch.float32).to(device)
    constant, numbers = between(values, values)
    assert constant == 0
    assert numbers == pytest.approx(dict.fromkeys(NUMBERS, 0.0), abs=1e-6)
    _, numbers = between(values.flip(0), values)  # the same images in another order: only they move
    assert numbers["w1_mean"] == 0
    assert numbers["moved_mean"] > 1
    _, numbers = between(values - 2.0, values)
    moved = [numbers[name] for name in ("w1_median", "w1_mean", "w1_p90", "moved_median", "moved_mean")]
    assert moved == pytest.approx([2.0] * 5, rel=1e-5)
    assert numbers["log_std_mean"] == pytest.approx(0, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), gain=st.floats(-3, 3), d=st.floats(-3, 3),
       factor=st.sampled_from([10.0, 1e-3, 1e-15, 1e12]))  # fmt: skip
def test_laws(seed, share, gain, d, factor):
    then = normal(50, 6, 2, seed=seed)
    now = gain * then + share * normal(50, 6, 2, seed=seed + 1) + d
    _, n = between(now, then)
    for low, high in (("w1_median", "moved_median"), ("w1_scaled_mean", "moved_scaled_mean"),
                      ("drift_scaled_mean", "w1_scaled_mean"), ("w1_mean", "moved_mean")):  # fmt: skip
        assert n[low] <= n[high] * (1 + 1e-9) + 1e-12
    assert 0 <= n["js_mean"] <= math.log(2)
    _, other = between(factor * now, factor * then)  # in another unit of measurement
    for name in NUMBERS:
        raw = name.startswith(("w1", "moved")) and "scaled" not in name
        wanted = factor * n[name] if raw else n[name]  # NaN of a ratio to 0
        on_an_edge = 0.05 if name == "js_mean" else 0  # of a bin
        assert other[name] == pytest.approx(wanted, rel=1e-3, abs=on_an_edge, nan_ok=True), name


def test_jensen_shannon_of_equal_and_of_disjoint_distributions(device):
    a = ascending(normal(4, 80).float().to(device))
    constant = torch.ones_like(a)
    pairs = (a, a), (a, a + 100), (constant, 2 * constant)
    equal, disjoint, constants = (jensen_shannon(*pair) for pair in pairs)
    assert equal.tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert disjoint.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-6)
    assert constants.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-6)


def test_units_that_are_constant_at_both_times_are_left_out_and_counted():
    values = normal(64, 4, 1, dtype=torch.float32)
    then, now = values.clone(), 2 * values
    then[:, 1], now[:, 1] = 0.1, 0.1  # constant, and 0.1 is no binary number
    then[:, 3], now[:, 3] = 7.0, 9.0
    constant, numbers = between(now, then)
    assert constant == 2
    assert numbers == pytest.approx(between(now[:, ::2], then[:, ::2])[1], rel=1e-6)
    now[:, 1] = values[:, 1]  # woke up: it counts, but its std has no ratio to 0
    constant, woken = between(now, then)
    assert constant == 1
    assert woken["log_std_mean"] == pytest.approx(numbers["log_std_mean"], rel=1e-6)
    assert math.isfinite(woken["w1_scaled_mean"])
    assert woken["w1_scaled_mean"] != numbers["w1_scaled_mean"]
    constant, unknown = between(torch.full((20, 3, 2), 0.1), torch.full((20, 3, 2), 0.2))
    assert constant == 3
    assert all(map(math.isnan, unknown.values()))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_a_layer_that_is_no_longer_finite_is_not_passed_over(bad):
    # A median over the units that still are finite would report a calm layer. The square of 1e30 is not finite.
    one, other = normal(50, 5, 1, dtype=torch.float32), normal(50, 5, 1, seed=1, dtype=torch.float32)
    one[3, 2] = bad
    for pair in ((one, other), (other, one)):
        assert all(map(math.isnan, between(*pair)[1].values()))


def test_of_other_images_nothing_is_said_image_by_image():
    now, then = values_of(normal(40, 5, 1)), values_of(normal(40, 5, 1, seed=1))
    [whole] = distances([(now, then)], [1])
    without = {name: value for name, value in whole.items() if not name.startswith("moved")}
    assert distances([(now._replace(by_image=None), then)], [1]) == [without]
    assert tuple(whole) == ("constant", *NUMBERS)


def test_many_pairs_at_once_are_each_as_alone():
    # Tensors with fewer units are filled up, and those of one length are binned together.
    shapes = [(40, 5, 1), (40, 3, 2), (40, 8, 1), (20, 1, 4)]
    pairs = [
        (values_of(normal(*shape, seed=i)), values_of(normal(*shape, seed=9 + i))) for i, shape in enumerate(shapes)
    ]
    pairs[2] = tuple(z._replace(by_image=None) for z in pairs[2])
    every = [1, 2, 3, 1]
    alone = [distances([pair], [n])[0] for pair, n in zip(pairs, every, strict=True)]
    for together, one in zip(distances(pairs, every), alone, strict=True):
        assert together == pytest.approx(one, rel=1e-12, nan_ok=True)
    assert distances([], []) == []
