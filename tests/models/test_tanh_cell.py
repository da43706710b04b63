"""The simple recurrent cell against torch.nn.RNN, and with norms against its formula written out step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from normbench.models import TanhCell
from normbench.norms import NormScheme, RecurrentBatchNorm, RecurrentLayerNorm

EXACT = {"rtol": 1e-11, "atol": 1e-12}
T, N, INPUTS, UNITS = 5, 6, 3, 4


def cell_of(scheme: NormScheme) -> TanhCell:
    torch.manual_seed(0)
    cell = TanhCell(scheme, INPUTS, UNITS, T).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.2)
    return cell


def inputs() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(T, N, INPUTS, generator=g, dtype=torch.float64)
    return x.requires_grad_(), torch.randn(N, UNITS, generator=g, dtype=torch.float64).requires_grad_()


def test_without_a_norm_is_torchs_rnn():
    ours, theirs = cell_of(NormScheme()), nn.RNN(INPUTS, UNITS).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input.weight)
        theirs.weight_hh_l0.copy_(ours.hidden.weight)
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()
    mine, other = inputs(), inputs()
    h, (_, last_h) = ours(mine[0], (mine[1],)), theirs(other[0], other[1][None])
    torch.testing.assert_close(h, last_h[0], **EXACT)
    up = torch.randn_like(h)
    h.backward(up), last_h.backward(up[None])
    for a, b in (
        *zip(mine, other, strict=True),
        (ours.input.weight, theirs.weight_ih_l0),
        (ours.hidden.weight, theirs.weight_hh_l0),
        (ours.bias, theirs.bias_ih_l0),
    ):
        torch.testing.assert_close(a.grad, b.grad, **EXACT)


@pytest.mark.parametrize(("recurrent_norm", "axis"), [(RecurrentLayerNorm, 1), (RecurrentBatchNorm, 0)])
def test_a_norm_stands_on_each_product(recurrent_norm, axis):
    cell = cell_of(NormScheme(recurrent_norm=recurrent_norm))
    n_x, n_h = (next(norm.parameters()) for norm in (cell.input_norm, cell.hidden_norm))
    assert len(list(cell.parameters())) == 3 + 2  # and none on the state
    x, start = inputs()

    def norm(a: Tensor, gain: Tensor) -> Tensor:
        return gain * (a - a.mean(axis, keepdim=True)) / (a.var(axis, correction=0, keepdim=True) + 1e-5).sqrt()

    h = start
    for x_t in x:
        h = torch.tanh(norm(x_t @ cell.input.weight.T, n_x) + norm(h @ cell.hidden.weight.T, n_h) + cell.bias)
    torch.testing.assert_close(cell(x, (start,)), h, **EXACT)


@pytest.mark.parametrize("norm", [None, RecurrentLayerNorm])
def test_shows_its_three_tensors_at_every_step(norm):
    cell = cell_of(NormScheme(recurrent_norm=norm))
    x, h = inputs()
    seen: list[tuple[str, Tensor]] = []
    cell.observer = lambda name, tensor: seen.append((name, tensor))
    last = cell(x, (h,))
    names = ["linear", "activation"] if norm is None else ["linear", "normalized", "activation"]
    assert [name for name, _ in seen] == names * T
    products = x[0] @ cell.input.weight.T + h @ cell.hidden.weight.T
    torch.testing.assert_close(seen[0][1], products + cell.bias if norm is None else products, **EXACT)
    assert torch.equal(seen[-1][1], last)
    assert torch.equal(seen[-2][1].tanh(), last)  # what tanh gets is the last but one
