"""Noisy batch norm: what the noise is, that it is new at each step, and that evaluation knows none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from normbench.norms import BatchNorm
from normbench.norms.noisy_batch import NoisyBatchNorm

N, C = 2000, 400
LINE = 2 * torch.arange(N).remainder(2).double() - 1  # -1, 1, -1, ...: standardised already


def noise(norm: NoisyBatchNorm, n: int = N) -> tuple[Tensor, Tensor]:
    """k and m [n, C] of one step: from x and -x under the same random numbers."""
    x = LINE[:n, None].expand(n, norm.running_mean.numel())
    state = torch.get_rng_state()
    plus = norm(x)
    torch.set_rng_state(state)
    minus = norm(-x)
    y = BatchNorm(x.shape[1], affine=False).double()(x)
    return (plus - minus) / (2 * y), (plus + minus) / 2


def test_the_noise_has_the_published_ranges():
    torch.manual_seed(0)
    k, m = noise(NoisyBatchNorm(C, affine=False).double())
    # Per unit: mu ~ U(-0.5, 0.5), s ~ U(1, 1.25). A mean of 2,000 values of +-0.1 is known to 0.002.
    mu, s = m.mean(0), k.mean(0)
    assert mu.min().item() == pytest.approx(-0.5, abs=0.02)
    assert mu.max().item() == pytest.approx(0.5, abs=0.02)
    assert s.min().item() == pytest.approx(1.0, abs=0.015)
    assert s.max().item() == pytest.approx(1.25, abs=0.015)
    assert mu.var().item() == pytest.approx(1 / 12, rel=0.2)  # of 400 uniform draws
    assert s.var().item() == pytest.approx(0.25**2 / 12, rel=0.2)
    # Per example: m ~ U(mu - 0.1, mu + 0.1), k ~ N(s, 0.1^2).
    assert (m - mu).abs().max() < 0.105
    assert (m - mu).var().item() == pytest.approx(0.2**2 / 12, rel=0.01)
    assert (k - s).var().item() == pytest.approx(0.1**2, rel=0.01)
    assert ((k - s) ** 4).mean().item() == pytest.approx(3 * 0.1**4, rel=0.05)  # normal
    assert abs(torch.corrcoef(torch.stack([mu, s]))[0, 1].item()) < 0.2


def test_the_noise_is_new_at_every_step():
    torch.manual_seed(1)
    norm = NoisyBatchNorm(C, affine=False).double()
    (_, first), (_, second) = noise(norm), noise(norm)
    noise_moved = (first.mean(0) - second.mean(0)).abs()
    assert noise_moved.mean().item() == pytest.approx(1 / 3, rel=0.15)  # of two uniform draws from an interval of 1
    assert noise_moved.max() > 0.8


def test_an_example_has_the_same_noise_at_all_positions_of_a_channel():
    torch.manual_seed(2)
    norm = NoisyBatchNorm(3, affine=False).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    y, clean = norm(x).flatten(2), BatchNorm(3, affine=False).double()(x).flatten(2)
    for i in range(4):
        for c in range(3):  # y = k clean + m: a straight line
            assert torch.corrcoef(torch.stack([y[i, c], clean[i, c]]))[0, 1].item() == pytest.approx(1, abs=1e-12)


def test_evaluation_and_running_statistics_know_no_noise():
    torch.manual_seed(3)
    norm, batch = NoisyBatchNorm(5), BatchNorm(5)
    x = torch.randn(4, 5, 3, 2) * 3 + 1
    assert (norm(x) - batch(x)).abs().max() > 0.1
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), batch.buffers(), strict=True))
    assert torch.equal(norm.eval()(x), batch.eval()(x))
    assert torch.equal(state, torch.get_rng_state())


def test_the_gradient_passes_the_factor_and_not_the_shift():
    norm, batch = NoisyBatchNorm(5).double(), BatchNorm(5).double()
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    outputs = []
    for beta in (0.0, 1.0):  # y = k (x_hat + beta) + m: k is what a beta of 1 adds
        torch.manual_seed(4)
        torch.nn.init.constant_(norm.bias, beta)
        outputs.append(norm(x))
    k, up = (outputs[1] - outputs[0]).detach(), torch.randn(6, 5, dtype=torch.float64)
    got = torch.autograd.grad(outputs[1], (x, norm.weight, norm.bias), up)
    wanted = torch.autograd.grad(batch(x), (x, batch.weight, batch.bias), k * up)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
