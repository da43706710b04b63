"""The cells against torch.nn.RNN, LSTM and GRU, and with norms against the published formulas, step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench.models import GRUCell, LSTMCell, RecurrentCell, TanhCell
from normbench.norms import BatchNorm, LayerNorm, MeanOnlyBatchNorm, NormScheme, PerStep, weight_norm

EXACT = {"rtol": 1e-11, "atol": 1e-12}  # float64, through up to 7 time steps
T, N, INPUTS, UNITS = 5, 6, 3, 4
CELLS = {"tanh": (TanhCell, nn.RNN), "lstm": (LSTMCell, nn.LSTM), "gru": (GRUCell, nn.GRU)}
NAMES = pytest.mark.parametrize("name", CELLS)


def make(name: str, scheme: NormScheme, steps: int = T) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name][0](scheme, INPUTS, UNITS, steps).double()
    with torch.no_grad():
        for key, parameter in cell.named_parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.2 if "norm" in key else torch.randn_like(parameter))
    return cell


def inputs(cell: RecurrentCell, steps: int = T) -> list[Tensor]:
    """x [T, N, inputs], and then the tensors of a state [N, units]."""
    g = torch.Generator().manual_seed(1)
    shapes = [(steps, N, INPUTS)] + [(N, UNITS)] * cell.states
    return [torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_() for shape in shapes]


def gradients(output: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    up = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.autograd.grad(output, leaves, up.to(output))


@NAMES
def test_without_a_norm_is_torchs_own(name, device):
    dtype, close = torch.float64, EXACT
    ours, theirs = make(name, NormScheme()).to(device, dtype), CELLS[name][1](INPUTS, UNITS).to(device, dtype)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input.weight)
        theirs.weight_hh_l0.copy_(ours.hidden.weight)
        theirs.bias_ih_l0.copy_(ours.bias)
        theirs.bias_hh_l0.zero_()
        if name == "gru":
            theirs.bias_hh_l0[2 * UNITS :] = ours.reset_bias
    mine, other = ([v.detach().to(device, dtype).requires_grad_() for v in inputs(ours)] for _ in range(2))
    shown: list[Tensor] = []
    ours.observer = lambda kind, tensor: shown.append(tensor) if kind == "activation" else None
    h = ours(mine[0], tuple(mine[1:]))
    state = [part[None] for part in other[1:]]
    every_h = theirs(other[0], tuple(state) if len(state) > 1 else state[0])[0]
    torch.testing.assert_close(h, every_h[-1], **close)
    torch.testing.assert_close(torch.stack(shown), every_h, **close)
    leaves = [*mine, ours.input.weight, ours.hidden.weight, ours.bias]
    wanted = [*other, theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_ih_l0]
    if name == "gru":
        leaves, wanted = [*leaves, ours.reset_bias], [*wanted, theirs.bias_hh_l0]
    for a, b in zip(gradients(h, leaves), gradients(every_h[-1], wanted), strict=True):
        torch.testing.assert_close(a, b[-len(a) :], **close)  # of b_hh only the candidate's part is used


# ---- the published formulas, one time step and one gate at a time


def over_units(a: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    """Ba et al. 2016, equations 15-16: mean and deviation of each row."""
    mean = a.sum(1, keepdim=True) / a.shape[1]
    return gain * (a - mean) / (((a - mean) ** 2).sum(1, keepdim=True) / a.shape[1] + eps).sqrt()


def over_batch(a: Tensor, gamma: Tensor, eps: float = 1e-5) -> Tensor:
    """Cooijmans et al. 2016, equation 2: mean and deviation of each column."""
    mean = a.sum(0) / len(a)
    return gamma * (a - mean) / (((a - mean) ** 2).sum(0) / len(a) + eps).sqrt()


Norm = Callable[[Tensor, Tensor], Tensor]


def published_tanh(cell: Any, x: Tensor, h: Tensor, norm: Norm, gains: list[Tensor]) -> Tensor:
    for x_t in x:
        h = torch.tanh(norm(x_t @ cell.input.weight.T, gains[0]) + norm(h @ cell.hidden.weight.T, gains[1]) + cell.bias)
    return h


def published_lstm(cell: Any, x: Tensor, h: Tensor, c: Tensor, norm: Norm, gains: list[Tensor]) -> Tensor:
    """h = s(o) tanh(norm(c) + b_c), from gates = norm(W_x x) + norm(W_h h) + b, gate blocks in the order i f g o."""
    for x_t in x:
        gates = norm(x_t @ cell.input.weight.T, gains[0]) + norm(h @ cell.hidden.weight.T, gains[1]) + cell.bias
        i, f, g, o = (gates[:, k * UNITS : (k + 1) * UNITS] for k in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)  # the cell itself is never normalised
        h = torch.sigmoid(o) * torch.tanh(norm(c, gains[2]) + gains[3] if len(gains) > 2 else c)
    return h


def published_gru(cell: Any, x: Tensor, h: Tensor, norm: Norm, gains: list[Tensor]) -> Tensor:
    """A norm on each of the four products; those of r and z are vectors of 2 x units; r acts after the norm."""
    (w, u), cut = (cell.input.weight, cell.hidden.weight), 2 * UNITS
    for x_t in x:
        gates = norm(x_t @ w[:cut].T, gains[0]) + norm(h @ u[:cut].T, gains[1]) + cell.bias[:cut]
        r, z = torch.sigmoid(gates[:, :UNITS]), torch.sigmoid(gates[:, UNITS:])
        new = norm(x_t @ w[cut:].T, gains[2]) + cell.bias[cut:]
        new = torch.tanh(new + r * (norm(h @ u[cut:].T, gains[3]) + cell.reset_bias))
        h = (1 - z) * new + z * h
    return h


PUBLISHED = {"tanh": published_tanh, "lstm": published_lstm, "gru": published_gru}
# Where the gains are, and how long: all gates of an example are normalised together, a GRU's candidate by itself.
GAINS = {
    "tanh": {"input_norm": UNITS, "hidden_norm": UNITS},
    "lstm": {"input_norm": 4 * UNITS, "hidden_norm": 4 * UNITS, "state_norm": UNITS},
    "gru": {"input_norm": 2 * UNITS, "hidden_norm": 2 * UNITS, "candidate_input_norm": UNITS,
            "candidate_hidden_norm": UNITS},
}  # fmt: skip


def recurrent_layer_norm(features: int, steps: int, place: str, **options: Any) -> PerStep:
    return PerStep(features, steps, place, norm=partial(LayerNorm, **options))


@NAMES
@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize(
    ("norm", "naive"), [(recurrent_layer_norm, over_units), (BatchNorm.in_cell, over_batch)], ids=["layer", "batch"]
)
def test_norms_are_as_published(name, norm, naive, eps):
    cell = make(name, NormScheme(recurrent_norm=partial(norm, eps=eps)))
    gains = [parameter for place in GAINS[name] for parameter in getattr(cell, place).parameters()]
    wanted = [*GAINS[name].values(), *([UNITS] if name == "lstm" else [])]  # and a bias on the state alone
    assert [len(gain) for gain in gains] == wanted
    given = inputs(cell)
    ours, theirs = cell(given[0], tuple(given[1:])), PUBLISHED[name](cell, *given, partial(naive, eps=eps), gains)
    torch.testing.assert_close(ours, theirs, **EXACT)
    leaves = [*given, *cell.parameters()]
    for a, b in zip(gradients(ours, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@NAMES
def test_weight_norm_with_mean_only_batch_norm_after_each_product(name):
    cell = make(name, NormScheme(reparametrize=weight_norm, recurrent_norm=MeanOnlyBatchNorm.in_cell))
    assert getattr(cell, "state_norm", None) is None
    for linear in (cell.input, cell.hidden):
        g, v = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
        torch.testing.assert_close(linear.weight, g * v / (v**2).sum(1, keepdim=True).sqrt(), **EXACT)
    given, gains = inputs(cell), [torch.empty(0)] * (4 if name == "gru" else 2)
    wanted = PUBLISHED[name](cell, *given, lambda a, gain: a - a.mean(0), gains)
    torch.testing.assert_close(cell(given[0], tuple(given[1:])), wanted, **EXACT)


def test_batch_norm_in_evaluation_uses_each_steps_average():
    cell = make("lstm", NormScheme(recurrent_norm=partial(BatchNorm.in_cell, momentum=0.3)))
    for seed in range(3):
        torch.manual_seed(seed)
        cell(torch.randn(T, N, INPUTS, dtype=torch.float64), tuple(torch.randn(2, N, UNITS, dtype=torch.float64)))
    cell.eval()
    x, h, c = (v.detach() for v in inputs(cell, steps=T + 2))  # longer than any seen: the last statistics serve
    norms = [cell.input_norm, cell.hidden_norm, cell.state_norm]
    calls = ((norm, min(t, T - 1)) for t in range(T + 2) for norm in norms)  # as published_lstm makes them

    def by_averages(value: Tensor, gain: Tensor) -> Tensor:
        norm, t = next(calls)
        return gain * (value - norm.running_mean[t]) / (norm.running_var[t] + 1e-5).sqrt()

    gains = [norm.weight for norm in norms] + [cell.state_norm.bias]
    wanted = published_lstm(cell, x, h, c, by_averages, gains)
    torch.testing.assert_close(cell(x, (h, c)), wanted, **EXACT)
    torch.testing.assert_close(cell(x[:, :1], (h[:1], c[:1])), wanted[:1], **EXACT)


@NAMES
@pytest.mark.parametrize("norm", [None, recurrent_layer_norm])
def test_shows_its_three_tensors_at_every_step(name, norm):
    cell = make(name, NormScheme(recurrent_norm=norm))
    given = inputs(cell)
    shown: list[tuple[str, Tensor]] = []
    cell.observer = lambda kind, tensor: shown.append((kind, tensor))
    last = cell(given[0], tuple(given[1:]))
    kinds = ["linear", "normalized", "activation"]
    if norm is None and name != "gru":  # whose reset gate comes between
        kinds.remove("normalized")
    assert [kind for kind, _ in shown] == kinds * T
    assert torch.equal(shown[-1][1], last)
    x, h = given[0][0], given[1]
    products = x @ cell.input.weight.T, h @ cell.hidden.weight.T
    torch.testing.assert_close(shown[0][1], sum(products) + (cell.bias if norm is None else 0), **EXACT)
    before, after = (tensor for _, tensor in shown[len(kinds) - 2 : len(kinds)])
    if name == "tanh":
        torch.testing.assert_close(before.tanh(), after, **EXACT)
    elif name == "gru":
        _, z, new = before.chunk(3, dim=1)
        torch.testing.assert_close(after, (1 - z.sigmoid()) * new.tanh() + z.sigmoid() * h, **EXACT)
    elif norm is not None:
        parts = cell.input_norm(products[0], 0) + cell.hidden_norm(products[1], 0)
        torch.testing.assert_close(before, parts + cell.bias, **EXACT)
