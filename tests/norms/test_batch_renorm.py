"""Batch renormalization against evaluation, and against its formula, in float64."""

from __future__ import annotations

import pytest
import torch
from formulas import assert_same, axes, per_channel, randomize

from normbench.norms.batch_renorm import BatchRenorm

SHAPES = [(6, 5), (2, 5), (4, 5, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_without_limits_training_gives_what_evaluation_gives(shape, device):
    torch.manual_seed(1)
    norm = randomize(BatchRenorm(5, r_max=1e6, d_max=1e6, warmup_steps=0)).to(device, torch.float64)
    for _ in range(3):
        x = (torch.randn(shape, dtype=torch.float64) * 3 + 2).to(device)
        wanted = norm.eval()(x)  # with the averages before this batch
        torch.testing.assert_close(norm.train()(x), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
def test_is_the_formula(shape, affine, device):
    torch.manual_seed(2)
    norm = BatchRenorm(5, r_max=1.5, d_max=0.5, warmup_steps=0, eps=1e-3, affine=affine).to(device, torch.float64)
    if affine:
        randomize(norm)
    norm.running_mean.copy_(torch.linspace(-1, 1, 5)), norm.running_var.copy_(torch.linspace(0.2, 5, 5))
    mean, sigma = norm.running_mean.clone(), (norm.running_var + 1e-3).sqrt()
    x = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
    mean_b, sigma_b = x.mean(axes(x)), (x.var(axes(x), correction=0) + 1e-3).sqrt()
    r = (sigma_b / sigma).clamp(1 / 1.5, 1.5).detach()  # no gradient through r and d
    d = ((mean_b - mean) / sigma).clamp(-0.5, 0.5).detach()
    assert len({*r.tolist()} & {1.5, 1 / 1.5}) >= 1  # some at a limit, others within
    x_hat = (x - per_channel(mean_b, x)) / per_channel(sigma_b, x) * per_channel(r, x) + per_channel(d, x)
    wanted = per_channel(norm.weight, x) * x_hat + per_channel(norm.bias, x) if affine else x_hat
    assert_same(norm(x), wanted, [x, *norm.parameters()])


def test_limits_grow_as_in_the_paper():
    # 1 and 0 for 5,000 steps; then linearly to 5 at 25,000 (d_max) and to 3 at 40,000 (r_max).
    norm = BatchRenorm(2).double()
    for step, r_max, d_max in (
        *((0, 1, 0), (5000, 1, 0), (15_000, 1 + 2 * 10 / 35, 2.5)),
        *((25_000, 1 + 2 * 20 / 35, 5), (40_000, 3, 5), (99_000, 3, 5)),
    ):
        norm.num_batches_tracked.fill_(step)
        assert [limit.item() for limit in norm.limits()] == pytest.approx([r_max, d_max])
    norm = BatchRenorm(2, warmup_steps=0)
    assert [limit.item() for limit in norm.limits()] == [3, 5]
