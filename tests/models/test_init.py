"""How weights start: moments of each method, what "auto" chooses, and the same draw for the same layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.models import CNN, MLP, RNN, initialize
from normbench.norms import Block, NormScheme, weight_norm

PLAIN = NormScheme()


def streams(name: str) -> torch.Generator:
    return seeding.generator(0, "weights", name)


def mlp(scheme: NormScheme = PLAIN, method: str = "auto", activation: str = "relu", **options: float) -> Any:
    """400 inputs, 500 hidden units, 10 classes."""
    model = MLP(scheme, (1, 20, 20), 10, hidden=[500], activation=activation)
    initialize(model, scheme, method, streams, **options)
    return model


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: block.linear.weight.detach() for name, block in model.named_children() if isinstance(block, Block)}


# 200,000 draws: a standard deviation is known to 0.2% (one sigma), so 1% is five sigmas.
@pytest.mark.parametrize(
    ("method", "std"),
    [
        ("he", (2 / 400) ** 0.5),
        ("lecun", (1 / 400) ** 0.5),
        ("glorot", (2 / 900) ** 0.5),
        ("torch", (1 / 400 / 3) ** 0.5),
        ("normal", 0.01),
    ],
)
def test_moments(method, std):
    w = weights(mlp(method=method))["hidden1"]
    assert w.std().item() == pytest.approx(std, rel=0.01)
    assert abs(w.mean().item()) < 5 * std / math.sqrt(w.numel())
    uniform = method == "torch"
    assert ((w / w.std()) ** 4).mean().item() == pytest.approx(9 / 5 if uniform else 3, rel=0.03)
    assert not uniform or w.abs().max() <= 400**-0.5


def test_moments_of_a_convolution_count_all_inputs_of_a_unit():
    model = CNN(PLAIN, (3, 8, 8), 10, channels=[64, 512])
    initialize(model, PLAIN, "he", streams)
    assert weights(model)["conv2"].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)


def test_orthogonal():
    w = weights(mlp(method="orthogonal"))["hidden1"]  # [500, 400]: orthonormal columns
    torch.testing.assert_close(w.T @ w, torch.eye(400), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "variance"),
    [("relu", 2 / 400), ("gelu", 2 / 400), ("sigmoid", 2 / 900), ("tanh", 2 / 900), ("selu", 1 / 400)],
)
def test_auto_suits_the_activation(activation, variance):
    found = weights(mlp(activation=activation))
    assert found["hidden1"].var().item() == pytest.approx(variance, rel=0.02)
    assert found["output"].var().item() == pytest.approx(1 / 500, rel=0.1)  # 5,000 draws: 2% is one sigma


def test_auto_is_the_schemes_own_where_it_has_one(scheme_of):
    for method, variance in (("auto", 1 / 400), ("he", 2 / 400)):
        w = weights(mlp(scheme_of("selu"), method=method))["hidden1"]
        assert w.var().item() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("method", ["auto", "he", "torch", "orthogonal", "normal"])
@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("tanh", 1)])
def test_cells_gate_by_gate(method, cell, gates):
    model = RNN(PLAIN, (1, 28, 96), 10, units=128, cell=cell)
    initialize(model, PLAIN, method, streams, std=0.05)
    variance = {
        "auto": (2 / (96 + 128), None), "he": (2 / 96, 2 / 128), "torch": (1 / 96 / 3, 1 / 128 / 3),
        "orthogonal": (None, None), "normal": (0.05**2, 0.05**2),
    }[method]  # fmt: skip
    for linear, wanted in zip((model.cell.input, model.cell.hidden), variance, strict=True):
        parts = linear.weight.detach().chunk(gates)
        assert len(parts[0]) == 128
        for gate in parts:
            if wanted is None:
                torch.testing.assert_close(gate.T @ gate, torch.eye(gate.shape[1]), rtol=0, atol=1e-5)
            else:
                assert gate.var().item() == pytest.approx(wanted, rel=0.07)  # 12,288 draws: 1.3% is one sigma
        assert gates == 1 or not torch.equal(parts[0], parts[1])


def test_a_layers_draw_depends_on_its_name_and_the_seed_alone():
    torch.manual_seed(1)
    narrow = mlp()
    torch.manual_seed(2)  # torch's own generator plays no part
    state, deep = torch.get_rng_state(), MLP(PLAIN, (1, 20, 20), 10, hidden=[500, 7, 7])
    torch.set_rng_state(state)
    initialize(deep, PLAIN, "auto", streams)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(weights(narrow)["hidden1"], weights(deep)["hidden1"])
    other = mlp()
    initialize(other, PLAIN, "auto", lambda name: seeding.generator(1, "weights", name))
    assert not torch.equal(weights(narrow)["hidden1"], weights(other)["hidden1"])


def test_weight_norm_starts_from_the_draw_with_g_its_length():
    linear = mlp(NormScheme(reparametrize=weight_norm)).hidden1.linear
    g, v = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
    assert torch.equal(v, mlp().hidden1.linear.weight)
    torch.testing.assert_close(g[:, 0], v.norm(dim=1))


# ---- model.init_std, model.init_scale


def test_only_normal_asks_for_the_standard_deviation():
    for a, b in zip(mlp().parameters(), mlp(std=5.0).parameters(), strict=True):
        assert torch.equal(a, b)
    for w in weights(mlp(method="normal", std=0.05)).values():
        assert w.std().item() == pytest.approx(0.05, rel=0.06)  # 5,000 draws or more: 1% is one sigma


@pytest.mark.parametrize("method", ["torch", "glorot", "orthogonal", "normal"])
def test_scale_multiplies_what_any_method_draws_and_nothing_else(method):
    plain, scaled = mlp(method=method), mlp(method=method, scale=0.25)
    for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(q, (0.25 if p.dim() > 1 else 1) * p)  # a power of two: exact


@pytest.mark.parametrize("reparametrize", [lambda linear: linear, weight_norm])
def test_scale_acts_on_the_function(reparametrize):
    # Biases are 0, and ReLU lets a factor through: three layers at twice the scale give 8 times the logits.
    scheme, x = NormScheme(reparametrize=reparametrize), torch.randn(5, 1, 4, 4)
    logits = []
    for scale in (1.0, 2.0):
        model = MLP(scheme, (1, 4, 4), 3, hidden=[8, 8], normalize_output=True)
        initialize(model, scheme, "auto", streams, scale=scale)
        logits.append(model(x))
    torch.testing.assert_close(logits[1], 8 * logits[0])
    if reparametrize is weight_norm:
        g, v = (getattr(model.hidden1.linear.parametrizations.weight, f"original{i}") for i in (0, 1))
        torch.testing.assert_close(g[:, 0], v.norm(dim=1))
