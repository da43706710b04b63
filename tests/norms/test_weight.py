"""Weight norm against its formulas: w = g v / |v|, and the gradients of section 2 of the paper."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.norms import weight_norm

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen


def layers() -> list[nn.Module]:
    return [nn.Linear(6, 4).double(), nn.Conv2d(3, 4, 3).double()]


def inputs(layer: nn.Module, device: torch.device) -> Tensor:
    shape = (5, 6) if isinstance(layer, nn.Linear) else (5, 3, 6, 6)
    return torch.randn(shape, dtype=torch.float64).to(device)


def parts(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.parametrizations.weight.original0, layer.parametrizations.weight.original1


def length(v: Tensor) -> Tensor:
    """|v| of each output unit or channel, over all its other axes; [C', 1, ...]."""
    return (v**2).sum(tuple(range(1, v.dim())), keepdim=True).sqrt()


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "conv"])
def test_starts_unchanged_with_g_the_length_of_the_weight(kind):
    layer = layers()[kind]
    weight = layer.weight.detach().clone()
    g, v = parts(weight_norm(layer))
    torch.testing.assert_close(g.detach(), length(weight), **EXACT)
    torch.testing.assert_close(v.detach(), weight, **EXACT)
    torch.testing.assert_close(layer.weight.detach(), weight, **EXACT)
    assert {name for name, _ in layer.named_parameters()} == {
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1"
    }  # fmt: skip


@pytest.mark.parametrize("kind", [0, 1], ids=["linear", "conv"])
def test_outputs_and_gradients_are_the_papers(kind, device):
    torch.manual_seed(0)
    layer = weight_norm(layers()[kind].to(device))
    g, v = parts(layer)
    with torch.no_grad():
        g.copy_(torch.linspace(-1.0, 2.0, 4).view_as(g))  # g may be negative, and is not tied to |v|
        v.mul_(3)
    x, op = inputs(layer, device), F.linear if kind == 0 else F.conv2d
    w = (g / length(v) * v).detach().requires_grad_()
    up = torch.randn_like(op(x, w))
    op(x, w, layer.bias.detach()).backward(up)
    y = layer(x)
    torch.testing.assert_close(y, op(x, w, layer.bias), **EXACT)
    y.backward(up)
    sums = tuple(range(1, v.dim()))
    grad_g = (w.grad * v).sum(sums, keepdim=True) / length(v)
    grad_v = g / length(v) * w.grad - g * grad_g / length(v) ** 2 * v
    torch.testing.assert_close(g.grad, grad_g.detach(), **EXACT)
    torch.testing.assert_close(v.grad, grad_v.detach(), **EXACT)
    assert (v.grad * v).sum(sums).abs().max() < 1e-13 * length(v.grad).max() * length(v).max()


def test_plain_gradient_descent_only_lengthens_v():
    torch.manual_seed(1)
    layer = weight_norm(nn.Linear(6, 4).double())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    lengths = [length(parts(layer)[1]).detach()]
    for _ in range(10):
        optimizer.zero_grad()
        y = layer(torch.randn(5, 6, dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
        lengths.append(length(parts(layer)[1]).detach())
    assert (torch.stack(lengths).diff(dim=0) > 0).all()


def test_setting_the_weight_sets_g_and_v():
    layer = weight_norm(nn.Linear(6, 4).double())
    wanted = torch.randn(4, 6, dtype=torch.float64)
    layer.weight = wanted
    g, v = parts(layer)
    torch.testing.assert_close(layer.weight.detach(), wanted, **EXACT)
    torch.testing.assert_close(g.detach(), length(wanted), **EXACT)
    torch.testing.assert_close(v.detach(), wanted, **EXACT)


def test_state_dict_and_deepcopy_carry_g_and_v():
    torch.manual_seed(2)
    layer = weight_norm(nn.Linear(6, 4))
    with torch.no_grad():
        parts(layer)[0].mul_(2)
    fresh = weight_norm(nn.Linear(6, 4))
    fresh.load_state_dict(layer.state_dict())
    for other in (fresh, copy.deepcopy(layer)):
        assert torch.equal(other.weight, layer.weight)
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in layer.state_dict().items())
