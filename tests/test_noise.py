"""Random numbers as a function: the laws of each kind, independence, and the same numbers wherever they are drawn."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from normbench import noise
from normbench.instruments.gradients import gradient
from normbench.noise import AlphaDropout, Dropout, Key, bernoulli, bits, key_of, next_draw, normal, seed_noise, set_draw
from normbench.noise import uniform as uniform_numbers
from normbench.training.loop import Update, steps

COUNT = 200_000
COMMITTED = [1848445733, -1781979728, -1922477694, 785256795, 2011675951, 1805515400]
P = 1e-4  # of the tests of laws: the draws are fixed, so that they never fail by chance


def key(seed: int = 1, draw: int = 1, layer: str = "hidden1", call: int = 0) -> Key:
    return key_of(seed, draw, layer)._replace(call=call)


def words(value: int) -> tuple[int, int]:
    return value % 2**32, value // 2**32 % 2**32


def by_numpy(seed: int, draw: int, layer: str, call: int, count: int) -> np.ndarray:
    """The same integers by another way: unsigned, with Python's integers for the constants."""
    low, b = words(int.from_bytes(hashlib.sha256(f"{layer}/{call}".encode()).digest()[:8], "big"))
    first, second = words(seed)
    x = np.arange(low % 2**30, low % 2**30 + count, dtype=np.uint64)
    x = (x + first + draw * 0x9E3779B1) % 2**32
    x ^= x >> 17
    x = (x * 0xED5AD4BB + second + b + draw * 0x85EBCA77) % 2**32
    x ^= x >> 11
    x = x * 0xAC4C1B51 % 2**32
    x ^= x >> 15
    x = x * 0x31848BAB % 2**32
    return (x ^ x >> 14).astype(np.uint32).view(np.int32)


# ---- the integers


@pytest.mark.parametrize(
    ("seed", "draw", "layer", "call"), [(0, 0, "", 0), (1, 1, "hidden1", 0), (2**63 - 5, 10**6, "cell", 3)]
)
def test_integers_by_another_way(seed, draw, layer, call, device):
    ours = bits(key_of(seed, draw, layer, device)._replace(call=call), (1001,))
    assert ours.dtype == torch.int32
    assert (ours.cpu().numpy() == by_numpy(seed, draw, layer, call, 1001)).all()


def test_numbers_stay_the_same_for_ever(device):
    # Changing these changes every run that draws noise.
    assert bits(key_of(7, 3, "hidden1.dropout", device), (6,)).tolist() == COMMITTED


def test_integers_are_uniform():
    x = bits(key(), (COUNT,)).numpy().view(np.uint32)
    for shift in (0, 8, 16, 24):
        assert stats.chisquare(np.bincount(x >> shift & 0xFF, minlength=256)).pvalue > P
    ones = [(x >> bit & 1).mean() for bit in range(32)]
    assert max(abs(np.array(ones) - 0.5)) < 4.5 * 0.5 / COUNT**0.5


def correlations(draws: list[Tensor]) -> float:
    """The largest correlation between any two, in standard errors."""
    found = np.corrcoef(torch.stack(draws).numpy())[np.triu_indices(len(draws), 1)]
    return float(np.abs(found).max() * draws[0].numel() ** 0.5)


@pytest.mark.parametrize(
    "keys",
    [
        [key(layer=f"hidden{i}") for i in range(12)],
        [key(call=i) for i in range(12)],
        [key(draw=i) for i in (*range(10), -1, -2)],
        [key(seed=i) for i in range(12)],
        [key(seed=i << 32) for i in range(12)],
    ],
    ids=["layers", "calls", "draws", "seeds", "high words of seeds"],
)
def test_layers_calls_draws_and_seeds_are_independent(keys):
    raw = [bits(k, (20_000,)) for k in keys]
    assert correlations([uniform_numbers(k, (20_000,)) for k in keys]) < 4.5
    assert correlations([normal(k, (20_000,)) for k in keys]) < 4.5
    for one, other in combinations(raw, 2):  # bit by bit: the xor of independent integers is uniform
        difference = (one ^ other).numpy().view(np.uint32)
        assert stats.chisquare(np.bincount(difference & 0xFF, minlength=256)).pvalue > P
        assert stats.chisquare(np.bincount(difference >> 24, minlength=256)).pvalue > P


def test_neighbouring_values_and_draws_are_independent():
    draws = torch.stack([uniform_numbers(key(draw=i), (2_000,)) for i in range(100)])
    for a, b in ((draws[:, 1:], draws[:, :-1]), (draws[1:], draws[:-1]), (draws[1:, 1:], draws[:-1, :-1])):
        r = np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]
        assert abs(r) * a.numel() ** 0.5 < 4.5
    assert stats.kstest(draws.mean(1) * (12 * 2_000) ** 0.5 - (3 * 2_000) ** 0.5, "norm").pvalue > P


# ---- floats


def test_uniform(device):
    u = uniform_numbers(key_of(1, 1, "a", device), (COUNT,)).cpu()
    assert stats.kstest(u.numpy(), "uniform").pvalue > P
    assert u.min() >= 0
    assert u.max() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal(dtype, device):
    z = normal(key_of(1, 1, "a", device), (COUNT - 1,), dtype).cpu()  # an odd number of them
    assert z.dtype == dtype
    assert stats.kstest(z.numpy(), "norm").pvalue > P
    assert abs(stats.kurtosis(z.numpy())) < 4.5 * (24 / COUNT) ** 0.5
    half = COUNT // 2
    for a, b in ((z[: half - 1], z[half:]), (z[: half - 1] ** 2, z[half:] ** 2)):  # cosine and sine of one angle
        assert abs(np.corrcoef(a, b)[0, 1]) * half**0.5 < 4.5
    torch.testing.assert_close(z, normal(key_of(1, 1, "a"), (COUNT - 1,), torch.float64).to(dtype), rtol=0, atol=1e-5)


def test_the_extremes_of_normal_are_finite(monkeypatch):
    edges = torch.tensor([[-(2**31), 2**31 - 1, 0], [-(2**31), 2**31 - 1, 0]], dtype=torch.int32)
    monkeypatch.setattr(noise, "bits", lambda key, shape: edges.view(shape).clone())
    z = normal(key(), (6,))
    assert z.isfinite().all()
    assert z.abs().max() == pytest.approx((48 * np.log(2)) ** 0.5)


@pytest.mark.parametrize("p", [0.0, 0.003, 0.5, 0.9])
def test_bernoulli(p):
    drawn = bernoulli(key(), p, (COUNT,))
    assert drawn.dtype == torch.bool
    assert drawn.sum().item() == 0 if p == 0 else stats.binomtest(drawn.sum().item(), COUNT, p).pvalue > P


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4, 2)])
def test_shapes(shape):
    for drawn in (bits(key(), shape), uniform_numbers(key(), shape), normal(key(), shape)):
        assert drawn.shape == shape


def test_the_same_alone_and_in_a_stack():
    keys = [key(seed=seed, draw=draw) for seed, draw in ((1, 5), (2, 5), (1, 6))]
    seeds, draws = torch.stack([k.seed for k in keys]), torch.stack([k.draw for k in keys])
    for draw in (bits, uniform_numbers, normal, lambda k, shape: bernoulli(k, 0.3, shape)):
        together = torch.func.vmap(lambda seed, d, draw=draw: draw(Key(seed, d, "hidden1"), (3, 5)))(seeds, draws)
        assert torch.equal(together, torch.stack([draw(k, (3, 5)) for k in keys]))


# ---- modules


def test_dropout_is_torchs_in_distribution():
    x = torch.rand(400, 500) + 0.5
    for p in (0.1, 0.5):
        y = Dropout(p)(x)
        assert torch.allclose(y[y != 0], (x / (1 - p))[y != 0])
        assert stats.binomtest((y == 0).sum().item(), x.numel(), p).pvalue > P
        assert torch.equal(Dropout(p).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 50), Dropout(0.5), nn.Linear(50, 50), AlphaDropout(0.5))


def test_noise_is_a_function_of_seed_draw_and_layer():
    torch.manual_seed(0)
    model, x = network(), torch.ones(4, 8)
    seed_noise(model, 3)
    state = torch.get_rng_state()
    passes = []
    for _ in range(3):
        next_draw(model)
        passes.append(model(x))
    assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[1], passes[2])
    set_draw(model, 2)
    assert torch.equal(model(x), passes[1])
    assert torch.equal(model(x), passes[1])
    assert torch.equal(deepcopy(model)(x), passes[1])
    copied = deepcopy(model)
    next_draw(copied)
    assert torch.equal(copied(x), passes[2])
    assert torch.equal(model(x), passes[1])
    seed_noise(model, 4)
    set_draw(model, 2)
    assert not torch.equal(model(x), passes[1])
    assert torch.equal(state, torch.get_rng_state())
    ones = torch.ones(10, 50)
    assert not torch.equal(model[1](ones) == 0, model[3](ones) < 0)  # layers differ
    assert not [name for name in model.state_dict() if "noise" in name]


def test_without_a_seed_noise_comes_from_torchs_generator():
    model, x = network(), torch.ones(4, 8)
    torch.manual_seed(0)
    first, second = model(x), model(x)
    torch.manual_seed(0)
    assert torch.equal(first, model(x))
    assert not torch.equal(first, second)


# ---- in training


def masks_of(
    model: nn.Sequential, images: int = 12, start: int = 0, updates: int = 3, accumulate: int = 1
) -> list[Tensor]:
    """What the first dropout of `model` dropped at each of its passes in `updates` updates of the same images."""
    found: list[Tensor] = []
    hook = model[1].register_forward_hook(lambda module, inputs, output: found.append(output == 0))
    batch = torch.ones(images, 8), torch.zeros(images, dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    list(steps(model, [batch] * updates, optimizer, start, Update(accumulate=accumulate)))
    hook.remove()
    return found


def test_each_part_of_a_batch_has_noise_of_its_own_and_a_resumed_run_the_same():
    torch.manual_seed(0)
    model = network()
    seed_noise(model, 3)
    for accumulate in (1, 3):
        passes = masks_of(model, accumulate=accumulate)
        assert len(passes) == 3 * accumulate
        assert not any(torch.equal(a, b) for a, b in combinations(passes, 2))
        for start in (1, 2):
            resumed = masks_of(model, start=start, updates=3 - start, accumulate=accumulate)
            assert torch.equal(torch.stack(resumed), torch.stack(passes[start * accumulate :]))


def test_passes_that_leave_no_trace_have_the_noise_of_the_next_step():
    torch.manual_seed(0)
    model, rehearsed = network(), []
    seed_noise(model, 3)
    batch = torch.ones(12, 8), torch.zeros(12, dtype=torch.long)
    model[1].register_forward_hook(lambda module, inputs, output: rehearsed.append(output == 0))
    for step in steps(model, [batch] * 3, torch.optim.SGD(model.parameters(), lr=0.0), update=Update(accumulate=2)):
        if step.batch is not None:
            for _ in range(2):
                gradient(model, Update(accumulate=2), step.batch)
    for first, second, actual in zip(*(torch.stack(rehearsed).view(3, 3, 2, 6, 50).unbind(1)), strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, actual)
