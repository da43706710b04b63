"""The LSTM cell against torch.nn.LSTM, and with norms against the published formulas written out step by step."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.models import LSTMCell
from normbench.norms import NormScheme, RecurrentBatchNorm, RecurrentLayerNorm, recurrent_mean_only, weight_norm

EXACT = {"rtol": 1e-11, "atol": 1e-12}  # float64, through up to 7 time steps
T, N, INPUTS, UNITS = 5, 6, 3, 4


def cell_of(scheme: NormScheme, steps: int = T) -> LSTMCell:
    torch.manual_seed(0)
    cell = LSTMCell(scheme, INPUTS, UNITS, steps).double()
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.2 if "norm" in name else torch.randn_like(parameter))
    return cell


def inputs(steps: int = T) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(steps, N, INPUTS, generator=g, dtype=torch.float64)
    h, c = torch.randn(2, N, UNITS, generator=g, dtype=torch.float64)
    return x.requires_grad_(), h.requires_grad_(), c.requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_norm_is_torchs_lstm(dtype, device):
    close: Any = EXACT if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}  # sums in another order, 5 steps
    ours, theirs = cell_of(NormScheme()).to(device, dtype), nn.LSTM(INPUTS, UNITS).to(device, dtype)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input.weight)
        theirs.weight_hh_l0.copy_(ours.hidden.weight)
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()
    mine, other = ([v.detach().to(device, dtype).requires_grad_() for v in inputs()] for _ in range(2))
    seen: list[Tensor] = []
    ours.observer = lambda name, tensor: seen.append(tensor) if name == "activation" else None
    h = ours(mine[0], (mine[1], mine[2]))
    every_h, (last_h, _) = theirs(other[0], (other[1][None], other[2][None]))
    torch.testing.assert_close(h, last_h[0], **close)
    torch.testing.assert_close(torch.stack(seen), every_h, **close)
    up = torch.randn(h.shape, dtype=dtype).to(device)
    h.backward(up), last_h.backward(up[None])
    for a, b in (
        *zip(mine, other, strict=True),
        (ours.input.weight, theirs.weight_ih_l0),
        (ours.hidden.weight, theirs.weight_hh_l0),
        (ours.bias, theirs.bias_ih_l0),
    ):
        torch.testing.assert_close(a.grad, b.grad, **close)


# ---- the published formulas, one time step and one gate at a time


def over_units(a: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Ba et al. 2016, equations 15-16: mean and deviation of each row."""
    mean = a.sum(1, keepdim=True) / a.shape[1]
    return gain * (a - mean) / (((a - mean) ** 2).sum(1, keepdim=True) / a.shape[1] + eps).sqrt()


def over_batch(a: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """Cooijmans et al. 2016, equation 2: mean and deviation of each column."""
    mean = a.sum(0) / len(a)
    return gamma * (a - mean) / (((a - mean) ** 2).sum(0) / len(a) + eps).sqrt()


def published(cell: LSTMCell, x: Tensor, h: Tensor, c: Tensor, norm: Any, gains: tuple[Tensor, ...]) -> Tensor:
    """h = s(o) tanh(norm(c) + b_c), from gates = norm(W_h h) + norm(W_x x) + b, gate blocks in the order i f g o."""
    w_x, w_h = cell.input.weight, cell.hidden.weight
    for x_t in x:
        gates = norm(h @ w_h.T, gains[0]) + norm(x_t @ w_x.T, gains[1]) + cell.bias
        i, f, g, o = (gates[:, k * UNITS : (k + 1) * UNITS] for k in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)  # the cell itself is never normalised
        h = torch.sigmoid(o) * torch.tanh(norm(c, gains[2]) + gains[3])
    return h


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norm_is_as_published(eps):
    cell = cell_of(NormScheme(recurrent_norm=partial(RecurrentLayerNorm, eps=eps)))
    gains = (cell.hidden_norm.norm.weight, cell.input_norm.norm.weight, cell.state_norm.norm.weight,
             cell.state_norm.norm.bias)  # fmt: skip
    assert len(gains[0]) == len(gains[1]) == 4 * UNITS  # all gates of an example are normalised together
    compare(cell, published, partial(over_units, eps=eps), gains)


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_batch_norm_is_as_published(eps):
    cell = cell_of(NormScheme(recurrent_norm=partial(RecurrentBatchNorm, eps=eps)))
    gains = (cell.hidden_norm.weight, cell.input_norm.weight, cell.state_norm.weight, cell.state_norm.bias)
    compare(cell, published, partial(over_batch, eps=eps), gains)


def compare(cell: LSTMCell, naive: Any, norm: Any, gains: tuple[Tensor, ...]) -> None:
    x, h, c = inputs()
    ours, wanted = cell(x, (h, c)), naive(cell, x, h, c, norm, gains)
    torch.testing.assert_close(ours, wanted, **EXACT)
    leaves = [x, h, c, *cell.parameters()]
    up = torch.randn_like(ours)
    got = torch.autograd.grad(ours, leaves, up)
    for a, b in zip(got, torch.autograd.grad(wanted, leaves, up), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_batch_norm_in_evaluation_uses_each_steps_average():
    cell = cell_of(NormScheme(recurrent_norm=partial(RecurrentBatchNorm, momentum=0.3)), steps=T)
    for seed in range(3):
        torch.manual_seed(seed)
        cell(torch.randn(T, N, INPUTS, dtype=torch.float64), tuple(torch.randn(2, N, UNITS, dtype=torch.float64)))
    cell.eval()
    x, h, c = (v.detach() for v in inputs(steps=T + 2))  # longer than any seen: the last statistics serve
    wanted_h, wanted_c = h, c

    def norm(module: Any, value: Tensor, t: int) -> Tensor:
        t = min(t, T - 1)
        y = module.weight * (value - module.running_mean[t]) / (module.running_var[t] + 1e-5).sqrt()
        return y if module.bias is None else y + module.bias

    for t, x_t in enumerate(x):
        gates = norm(cell.hidden_norm, wanted_h @ cell.hidden.weight.T, t)
        gates = gates + norm(cell.input_norm, x_t @ cell.input.weight.T, t) + cell.bias
        i, f, g, o = gates.chunk(4, 1)
        wanted_c = f.sigmoid() * wanted_c + i.sigmoid() * g.tanh()
        wanted_h = o.sigmoid() * norm(cell.state_norm, wanted_c, t).tanh()
    torch.testing.assert_close(cell(x, (h, c)), wanted_h, **EXACT)
    torch.testing.assert_close(cell(x[:, :1], (h[:1], c[:1])), wanted_h[:1], **EXACT)


def test_weight_norm_with_mean_only_batch_norm_after_each_matrix():
    cell = cell_of(NormScheme(reparametrize=weight_norm, recurrent_norm=recurrent_mean_only))
    assert cell.state_norm is None
    x, h, c = inputs()

    def weight(linear: Any) -> Tensor:
        g, v = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
        return g * v / (v**2).sum(1, keepdim=True).sqrt()

    wanted_h, wanted_c = h, c
    for x_t in x:
        a, b = x_t @ weight(cell.input).T, wanted_h @ weight(cell.hidden).T
        i, f, g, o = (a - a.mean(0) + b - b.mean(0) + cell.bias).chunk(4, 1)
        wanted_c = f.sigmoid() * wanted_c + i.sigmoid() * g.tanh()
        wanted_h = o.sigmoid() * wanted_c.tanh()
    torch.testing.assert_close(cell(x, (h, c)), wanted_h, **EXACT)


@pytest.mark.parametrize("norm", [None, RecurrentLayerNorm])
def test_shows_its_three_tensors_at_every_step(norm):
    cell = cell_of(NormScheme(recurrent_norm=norm))
    x, h, c = inputs()
    seen: list[tuple[str, Tensor]] = []
    cell.observer = lambda name, tensor: seen.append((name, tensor))
    last = cell(x, (h, c))
    names = ["linear", "activation"] if norm is None else ["linear", "normalized", "activation"]
    assert [name for name, _ in seen] == names * T
    assert torch.equal(seen[-1][1], last)
    products = x[0] @ cell.input.weight.T + h @ cell.hidden.weight.T
    torch.testing.assert_close(seen[0][1], products + cell.bias if norm is None else products, **EXACT)
    if norm is not None:
        parts = cell.input_norm(x[0] @ cell.input.weight.T, 0) + cell.hidden_norm(h @ cell.hidden.weight.T, 0)
        torch.testing.assert_close(seen[1][1], parts + cell.bias, **EXACT)
