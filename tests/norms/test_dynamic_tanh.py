"""Dynamic tanh against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.norms import DynamicTanh

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3, 2)])
def test_is_the_formula(shape, device):
    torch.manual_seed(0)
    norm = DynamicTanh(5).to(device, torch.float64)
    with torch.no_grad():
        norm.alpha.fill_(0.75)
        norm.weight.copy_(torch.linspace(0.5, 2.0, 5))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, 5))
    x = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
    up = torch.randn(shape, dtype=torch.float64).to(device)
    view, others = (1, 5, *[1] * (len(shape) - 2)), (0, *range(2, len(shape)))
    gamma, tanh = norm.weight.detach().view(view), (0.75 * x.detach()).tanh()
    y = norm(x)
    y.backward(up)
    torch.testing.assert_close(y, gamma * tanh + norm.bias.view(view), **EXACT)
    slope = up * gamma * (1 - tanh**2)
    torch.testing.assert_close(x.grad, 0.75 * slope, **EXACT)
    torch.testing.assert_close(norm.alpha.grad, (slope * x.detach()).sum().view(1), **EXACT)
    torch.testing.assert_close(norm.weight.grad, (up * tanh).sum(others), **EXACT)
    torch.testing.assert_close(norm.bias.grad, up.sum(others), **EXACT)


def test_starts_at_half_one_and_zero(scheme_of):
    norm = scheme_of("dynamic_tanh").norm(4)
    assert (norm.alpha.item(), norm.weight.tolist(), norm.bias.tolist()) == (0.5, [1] * 4, [0] * 4)
    norm = scheme_of("dynamic_tanh", "norm.alpha=2", "norm.affine=false").norm(4)
    assert [(name, p.tolist()) for name, p in norm.named_parameters()] == [("alpha", [2.0])]


def test_the_bias_before_it_stays(scheme_of):
    # It moves x within the tanh, which no bias after the tanh can do.
    assert scheme_of("dynamic_tanh").block(nn.Linear(4, 3), nn.ReLU).linear.bias is not None
