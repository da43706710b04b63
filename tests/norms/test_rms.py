"""RMS norm against torch.nn and against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import RMSNorm

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen


def naive(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Example by example."""
    view = (-1, *[1] * (x.dim() - 2))
    rms = [((example**2).sum() / example.numel() + eps).sqrt() for example in x]
    return torch.stack([gain.view(view) * a / r + bias.view(view) for a, r in zip(x, rms, strict=True)])


@pytest.mark.parametrize("shape", [(6, 5), (1, 5), (4, 5, 3, 2), (2, 5, 1, 1)])
@pytest.mark.parametrize("eps", [1e-30, 1e-5, 0.1])
def test_is_the_formula(shape, eps, device):
    torch.manual_seed(0)
    norm = RMSNorm(5, eps=eps).to(device, torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, 5))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, 5))
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 2).to(device).requires_grad_()
    y, wanted = norm(x), naive(x, norm.weight, norm.bias, eps)
    torch.testing.assert_close(y, wanted, **EXACT)
    up, leaves = torch.randn(shape, dtype=torch.float64).to(device), (x, norm.weight, norm.bias)
    got, expected = torch.autograd.grad(y, leaves, up), torch.autograd.grad(wanted, leaves, up)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_is_torchs_norm_where_the_bias_is_zero(device):
    x = torch.randn(6, 5, dtype=torch.float64).to(device)
    norm, theirs = RMSNorm(5, eps=1e-3).double(), nn.RMSNorm(5, eps=1e-3).double()
    torch.testing.assert_close(norm.to(device)(x), theirs.to(device)(x), **EXACT)


def test_does_not_centre():
    y = RMSNorm(4, affine=False).double()(torch.full((2, 4), 7.0, dtype=torch.float64))
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-6, atol=0)  # eps / 49 is lost
    assert list(RMSNorm(4, affine=False).parameters()) == []


@pytest.mark.parametrize("shape", [(3, 1), (3, 1, 1, 1)])
def test_one_value_per_example_is_unsupported(shape):
    with pytest.raises(Unsupported, match="RMSNorm needs two features to normalise over: got 1"):
        RMSNorm(1)(torch.randn(shape))
