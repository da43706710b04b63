"""Scaled weight standardization: moments, gradient laws, and a signal that keeps its size through a ReLU network."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import weight_standardization

GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # what ReLU takes from a normal variable's standard deviation


def layers() -> list[nn.Module]:
    return [nn.Linear(6, 4).double(), nn.Conv2d(3, 4, 3).double()]


def parts(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.parametrizations.weight.original0, layer.parametrizations.weight.original1


def naive(g: Tensor, v: Tensor, gain: float) -> Tensor:
    """Unit by unit."""
    out = []
    for scale, unit in zip(g.flatten(), v, strict=True):
        mean = unit.sum() / unit.numel()
        sigma = (((unit - mean) ** 2).sum() / unit.numel()).sqrt()
        out.append(scale * gain * (unit - mean) / (sigma * unit.numel() ** 0.5))
    return torch.stack(out)


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "conv"])
def test_weights_have_mean_zero_and_the_length_of_the_gain(kind):
    torch.manual_seed(0)
    layer = weight_standardization(layers()[kind], gain=1.5)
    w = layer.weight.detach().flatten(1)
    torch.testing.assert_close(w.mean(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(w.norm(dim=1), torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(w.var(1, correction=0) * w.shape[1], torch.full((4,), 1.5**2, dtype=torch.float64))
    assert {name for name, _ in layer.named_parameters()} == {
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"
    }  # fmt: skip


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "conv"])
def test_outputs_and_gradients_are_the_formulas(kind, device):
    torch.manual_seed(1)
    layer = weight_standardization(layers()[kind].to(device), gain=1.5)
    g, v = parts(layer)
    with torch.no_grad():
        g.copy_(torch.linspace(-1.0, 2.0, 4).view_as(g))
    op = F.linear if kind == 0 else F.conv2d
    x = torch.randn((5, 6) if kind == 0 else (5, 3, 6, 6), dtype=torch.float64).to(device)
    y, wanted = layer(x), op(x, naive(g, v, 1.5), layer.bias)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    up = torch.randn_like(y)
    got, expected = torch.autograd.grad(y, (g, v), up), torch.autograd.grad(wanted, (g, v), up)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    # Neither its scale nor its mean matter to w, so the gradient of v has no part along either.
    sums = tuple(range(1, v.dim()))
    assert (got[1] * v).sum(sums).abs().max() < 1e-13 * got[1].norm() * v.norm()
    assert got[1].sum(sums).abs().max() < 1e-13 * got[1].norm()


def test_the_gradient_goes_as_one_over_the_scale():
    torch.manual_seed(2)
    layer, x = weight_standardization(layers()[0]), torch.randn(5, 6, dtype=torch.float64)
    v = parts(layer)[1]
    (first,) = torch.autograd.grad(layer(x).square().sum(), v)
    with torch.no_grad():
        v.mul_(2)
    (second,) = torch.autograd.grad(layer(x).square().sum(), v)
    torch.testing.assert_close(second, first / 2, rtol=1e-11, atol=1e-13)


def test_the_default_gain_is_that_of_relu(scheme_of):
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5 * (z[1] - z[0])
    y = z.relu()
    var = (density * y**2).sum() - (density * y).sum() ** 2
    assert var.rsqrt().item() == pytest.approx(GAIN, rel=1e-6)
    layer = scheme_of("weight_standardization").block(nn.Linear(6, 4), nn.ReLU).linear
    assert layer.weight.norm(dim=1).tolist() == pytest.approx([GAIN] * 4, rel=1e-4)
    layer = scheme_of("weight_standardization", "norm.gain=1", "norm.affine=false").block(nn.Linear(6, 4)).linear
    assert layer.weight.norm(dim=1).tolist() == pytest.approx([1] * 4, rel=1e-4)
    assert [p.requires_grad for p in parts(layer)] == [False, True]


def test_a_signal_keeps_its_size_through_a_relu_network(scheme_of):
    # Without the centring of the weights, means would add up layer by layer and variances go astray.
    torch.manual_seed(3)
    scheme, t = scheme_of("weight_standardization"), torch.randn(1000, 500)
    for _ in range(10):
        t = scheme.block(nn.Linear(500, 500, bias=False)).linear(t.relu())
        # 500 units: a layer's variance is known to some percent, and the errors of ten multiply.
        assert t.var(0).mean().item() == pytest.approx(1, rel=0.2)


def test_setting_the_weight_sets_v_and_keeps_the_length():
    layer = weight_standardization(nn.Linear(6, 4).double(), gain=1.0)
    with torch.no_grad():
        parts(layer)[0].fill_(7)
    wanted = torch.randn(4, 6, dtype=torch.float64)
    layer.weight = wanted
    assert torch.equal(parts(layer)[1].detach(), wanted)
    assert torch.equal(parts(layer)[0].detach(), torch.ones(4, 1, dtype=torch.float64))
    torch.testing.assert_close(layer.weight.detach(), naive(torch.ones(4), wanted, 1.0))


def test_weights_that_are_all_the_same_stay_finite():
    layer = weight_standardization(nn.Linear(6, 4))
    layer.weight = torch.full((4, 6), 0.3)
    layer(torch.randn(3, 6)).sum().backward()
    assert not layer.weight.abs().max() > 1e-4
    assert parts(layer)[1].grad.isfinite().all()


def test_one_input_is_unsupported():
    with pytest.raises(Unsupported, match="Weight standardization needs two inputs to a unit: got 1"):
        weight_standardization(nn.Linear(1, 4))


def test_state_dict_and_deepcopy_carry_g_and_v():
    layer, fresh = weight_standardization(nn.Linear(6, 4)), weight_standardization(nn.Linear(6, 4))
    with torch.no_grad():
        parts(layer)[0].mul_(2)
    fresh.load_state_dict(layer.state_dict())
    for other in (fresh, copy.deepcopy(layer)):
        assert torch.equal(other.weight, layer.weight)
