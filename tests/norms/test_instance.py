"""Instance norm against torch.nn and against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.errors import Unsupported
from normbench.norms import InstanceNorm

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (1, 5, 1, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_is_the_formula_and_torchs_norm(shape, training, device):
    torch.manual_seed(0)
    norm = InstanceNorm(5, eps=1e-3).to(device, torch.float64).train(training)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, 5))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, 5))
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 2).to(device).requires_grad_()
    mean = x.mean((2, 3), keepdim=True)
    var = ((x - mean) ** 2).mean((2, 3), keepdim=True)
    gamma, beta = norm.weight.view(-1, 1, 1), norm.bias.view(-1, 1, 1)
    wanted, y = gamma * (x - mean) / (var + 1e-3).sqrt() + beta, norm(x)
    torch.testing.assert_close(y, wanted, **EXACT)
    up = torch.randn(shape, dtype=torch.float64).to(device)
    leaves = (x, norm.weight, norm.bias)
    got, expected = torch.autograd.grad(y, leaves, up), torch.autograd.grad(wanted, leaves, up)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    theirs = nn.InstanceNorm2d(5, eps=1e-3, affine=True).to(device, torch.float64)
    theirs.load_state_dict(norm.state_dict())
    assert torch.equal(theirs(x), y)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1, 1)])
def test_one_position_is_unsupported(shape):
    with pytest.raises(Unsupported, match="InstanceNorm needs two positions to normalise over: got one value per unit"):
        InstanceNorm(5)(torch.randn(shape))


def test_every_mlp_and_every_cell_is_unsupported(scheme_of):
    scheme = scheme_of("instance")
    with pytest.raises(Unsupported):
        scheme.block(nn.Linear(4, 3), nn.ReLU)(torch.randn(5, 4))
    with pytest.raises(Unsupported):
        scheme.recurrent_norm(4, 3, "input")(torch.randn(5, 4), 0)


def test_remembers_nothing():
    norm = InstanceNorm(4)
    assert list(norm.buffers()) == []
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(norm.bias, torch.zeros(4))
    assert list(InstanceNorm(4, affine=False).parameters()) == []
