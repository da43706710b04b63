"""The GRU cell against torch.nn.GRU, and with norms against the published formulas written out step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.models import GRUCell
from normbench.norms import NormScheme, RecurrentBatchNorm, RecurrentLayerNorm, recurrent_mean_only, weight_norm

EXACT = {"rtol": 1e-11, "atol": 1e-12}  # float64, through 5 time steps
T, N, INPUTS, UNITS = 5, 6, 3, 4


def cell_of(scheme: NormScheme) -> GRUCell:
    torch.manual_seed(0)
    cell = GRUCell(scheme, INPUTS, UNITS, T).double()
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.2 if "norm" in name else torch.randn_like(parameter))
    return cell


def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(T, N, INPUTS, generator=g, dtype=torch.float64)
    return x.requires_grad_(), torch.randn(N, UNITS, generator=g, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_norm_is_torchs_gru(dtype, device):
    close: Any = EXACT if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    ours, theirs = cell_of(NormScheme()).to(device, dtype), nn.GRU(INPUTS, UNITS).to(device, dtype)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input.weight)
        theirs.weight_hh_l0.copy_(ours.hidden.weight)
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()[2 * UNITS :] = ours.reset_bias
    mine, other = ([v.detach().to(device, dtype).requires_grad_() for v in inputs()] for _ in range(2))
    seen: list[Tensor] = []
    ours.observer = lambda name, tensor: seen.append(tensor) if name == "activation" else None
    h = ours(mine[0], (mine[1],))
    every_h, last_h = theirs(other[0], other[1][None])
    torch.testing.assert_close(h, last_h[0], **close)
    torch.testing.assert_close(torch.stack(seen), every_h, **close)
    up = torch.randn(h.shape, dtype=dtype).to(device)
    h.backward(up), last_h.backward(up[None])
    assert theirs.bias_hh_l0.grad is not None
    for a, b in (
        *((a.grad, b.grad) for a, b in zip(mine, other, strict=True)),
        (ours.input.weight.grad, theirs.weight_ih_l0.grad),
        (ours.hidden.weight.grad, theirs.weight_hh_l0.grad),
        (ours.bias.grad, theirs.bias_ih_l0.grad),
        (ours.reset_bias.grad, theirs.bias_hh_l0.grad[2 * UNITS :]),
    ):
        torch.testing.assert_close(a, b, **close)


# ---- the published formulas, one time step at a time


def over_units(a: Tensor, gain: Tensor) -> Tensor:
    mean = a.sum(1, keepdim=True) / a.shape[1]
    return gain * (a - mean) / (((a - mean) ** 2).sum(1, keepdim=True) / a.shape[1] + 1e-5).sqrt()


def over_batch(a: Tensor, gamma: Tensor) -> Tensor:
    mean = a.sum(0) / len(a)
    return gamma * (a - mean) / (((a - mean) ** 2).sum(0) / len(a) + 1e-5).sqrt()


def published(cell: GRUCell, x: Tensor, h: Tensor, norm: Any, gains: list[Tensor]) -> Tensor:
    """A norm on each of the four products; those of r and z are vectors of 2 x units; r acts after the norm."""
    (w, u), cut = (cell.input.weight, cell.hidden.weight), 2 * UNITS
    for x_t in x:
        gates = norm(x_t @ w[:cut].T, gains[0]) + norm(h @ u[:cut].T, gains[1]) + cell.bias[:cut]
        r, z = torch.sigmoid(gates[:, :UNITS]), torch.sigmoid(gates[:, UNITS:])
        new = norm(x_t @ w[cut:].T, gains[2]) + cell.bias[cut:]
        new = torch.tanh(new + r * (norm(h @ u[cut:].T, gains[3]) + cell.reset_bias))
        h = (1 - z) * new + z * h
    return h


NORMS = ("input_norm", "hidden_norm", "candidate_input_norm", "candidate_hidden_norm")


@pytest.mark.parametrize(
    ("recurrent_norm", "naive"),
    [(RecurrentLayerNorm, over_units), (RecurrentBatchNorm, over_batch)],
    ids=["layer", "batch"],
)
def test_norms_are_as_published(recurrent_norm, naive):
    cell = cell_of(NormScheme(recurrent_norm=recurrent_norm))
    gains = [next(getattr(cell, name).parameters()) for name in NORMS]
    assert [len(gain) for gain in gains] == [2 * UNITS, 2 * UNITS, UNITS, UNITS]
    assert len(list(cell.parameters())) == 2 + 2 + 4  # and no bias in a norm
    x, h = inputs()
    ours, wanted = cell(x, (h,)), published(cell, x, h, naive, gains)
    torch.testing.assert_close(ours, wanted, **EXACT)
    leaves, up = [x, h, *cell.parameters()], torch.randn_like(ours)
    got = torch.autograd.grad(ours, leaves, up)
    for a, b in zip(got, torch.autograd.grad(wanted, leaves, up), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_weight_norm_with_mean_only_batch_norm_after_each_product():
    cell = cell_of(NormScheme(reparametrize=weight_norm, recurrent_norm=recurrent_mean_only))
    x, h = inputs()
    wanted = published(cell, x, h, lambda a, gain: a - a.mean(0), [torch.empty(0)] * 4)
    torch.testing.assert_close(cell(x, (h,)), wanted, **EXACT)


@pytest.mark.parametrize("norm", [None, RecurrentLayerNorm])
def test_shows_its_three_tensors_at_every_step(norm):
    cell = cell_of(NormScheme(recurrent_norm=norm))
    x, h = inputs()
    seen: list[tuple[str, Tensor]] = []
    cell.observer = lambda name, tensor: seen.append((name, tensor))
    last = cell(x, (h,))
    assert [name for name, _ in seen] == ["linear", "normalized", "activation"] * T
    assert torch.equal(seen[-1][1], last)
    linear, gates, first = (tensor for _, tensor in seen[:3])
    products = x[0] @ cell.input.weight.T + h @ cell.hidden.weight.T
    torch.testing.assert_close(linear, products + cell.bias if norm is None else products, **EXACT)
    _, z, new = gates.chunk(3, dim=1)
    torch.testing.assert_close(first, (1 - z.sigmoid()) * new.tanh() + z.sigmoid() * h, **EXACT)


def test_biases_start_at_zero():
    cell = cell_of(NormScheme())
    cell.start_biases()
    assert not cell.bias.any()
    assert not cell.reset_bias.any()
