"""How weights start: moments of each method, what "auto" chooses, and the same draw for the same layer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.errors import Unsupported
from normbench.models import CNN, MLP, RNN, LSTMCell, RecurrentCell, initialize
from normbench.norms import Block, NormScheme, weight_norm


def streams(name: str) -> torch.Generator:
    return seeding.generator(0, "weights", name)


def mlp(scheme: NormScheme = NormScheme(), method: str = "auto", activation: str = "relu", width: int = 500) -> Any:  # noqa: B008
    model = MLP(scheme, (1, 20, 20), 10, hidden=[width], activation=activation)
    initialize(model, scheme, method, streams)
    return model


def drawn(model: nn.Module) -> dict[str, Tensor]:
    """What was drawn for each layer: its weight, or v where it is re-parametrised (g = |v| then)."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("linear", "input", "hidden")) and isinstance(module, nn.Linear | nn.Conv2d):
            reparametrized: Any = getattr(module, "parametrizations", None)
            found[name] = (reparametrized.weight.original1 if reparametrized else module.weight).detach()
    return found


# 200,000 draws: a standard deviation is known to 0.2% (one sigma), so 1% is five sigmas.
@pytest.mark.parametrize(
    ("method", "std"),
    [
        ("he", (2 / 400) ** 0.5),
        ("lecun", (1 / 400) ** 0.5),
        ("glorot", (2 / 900) ** 0.5),
        ("torch", (1 / 400 / 3) ** 0.5),
    ],
)
def test_moments(method, std):
    w = drawn(mlp(method=method))["hidden1.linear"]
    assert w.std().item() == pytest.approx(std, rel=0.01)
    assert abs(w.mean().item()) < 5 * std / math.sqrt(w.numel())
    z = (w / w.std()).flatten()
    uniform = method == "torch"
    assert (z**4).mean().item() == pytest.approx(9 / 5 if uniform else 3, rel=0.03)
    if uniform:
        assert w.abs().max() <= 400**-0.5


def test_moments_of_a_convolution_count_all_inputs_of_a_unit():
    model = CNN(NormScheme(), (3, 8, 8), 10, channels=[64, 512])
    initialize(model, NormScheme(), "he", streams)
    assert drawn(model)["conv2.linear"].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)


def test_orthogonal():
    w = drawn(mlp(method="orthogonal"))["hidden1.linear"]  # [500, 400]: orthonormal columns
    torch.testing.assert_close(w.T @ w, torch.eye(400), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "variance"),
    [
        ("relu", 2 / 400), ("leaky_relu", 2 / 400), ("elu", 2 / 400), ("gelu", 2 / 400),
        ("sigmoid", 2 / 900), ("tanh", 2 / 900), ("selu", 1 / 400),
    ],
)  # fmt: skip
def test_auto_suits_the_activation(activation, variance):
    weights = drawn(mlp(activation=activation))
    assert weights["hidden1.linear"].var().item() == pytest.approx(variance, rel=0.02)
    assert weights["output.linear"].var().item() == pytest.approx(1 / 500, rel=0.1)  # 5,000 draws: 2% is one sigma


def test_auto_is_the_schemes_own_where_it_has_one(scheme_of):
    w = drawn(mlp(scheme_of("selu")))["hidden1.linear"]
    assert w.var().item() == pytest.approx(1 / 400, rel=0.02)
    w = drawn(mlp(scheme_of("selu"), method="he"))["hidden1.linear"]
    assert w.var().item() == pytest.approx(2 / 400, rel=0.02)


@pytest.mark.parametrize("method", ["auto", "he", "lecun", "glorot", "orthogonal", "torch"])
@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("tanh", 1)])
def test_cells_gate_by_gate(method, cell, gates):
    model = RNN(NormScheme(), (1, 28, 96), 10, units=128, cell=cell)
    initialize(model, NormScheme(), method, streams)
    variance = {
        "auto": (2 / (96 + 128), None), "he": (2 / 96, 2 / 128), "lecun": (1 / 96, 1 / 128),
        "glorot": (2 / (96 + 128), 2 / 256), "torch": (1 / 96 / 3, 1 / 128 / 3), "orthogonal": (None, None),
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


def test_biases_start_at_zero_and_the_forget_gates_at_one(norm_name, model_name, network_of):
    model = network_of(norm_name, model_name, normalize_output=False)
    checked = 0
    for module in model.modules():
        if isinstance(module, Block) and module.linear.bias is not None:
            assert not module.linear.bias.any()
            checked += 1
        if isinstance(module, LSTMCell):
            i, f, g, o = module.bias.chunk(4)
            assert (f == 1).all()
            assert not torch.cat([i, g, o]).any()
            checked += 1
        elif isinstance(module, RecurrentCell):
            assert not module.bias.any()
            assert not getattr(module, "reset_bias", module.bias).any()
            checked += 1
    assert checked  # at least the output layer


def test_the_same_layer_starts_from_the_same_draw_in_every_scheme(norm_name, model_name, network_of):
    plain, other = drawn(network_of("none", model_name, init="he")), drawn(network_of(norm_name, model_name, init="he"))
    assert plain.keys() == other.keys()
    for name, w in plain.items():
        assert torch.equal(w, other[name]), name


def test_with_auto_the_draw_differs_by_its_scale_at_most(norm_name, model_name, network_of):
    plain, other = drawn(network_of("none", model_name)), drawn(network_of(norm_name, model_name))
    for name, w in plain.items():
        if not name.endswith("hidden"):  # SELU draws W_h, elsewhere orthogonal, from a normal distribution
            scale = other[name].norm() / w.norm()
            torch.testing.assert_close(other[name], w * scale, rtol=1e-5, atol=1e-6)


def test_a_layers_draw_depends_on_its_name_and_the_seed_alone():
    narrow, deep = mlp(), MLP(NormScheme(), (1, 20, 20), 10, hidden=[500, 7, 7])
    initialize(deep, NormScheme(), "auto", streams)
    assert torch.equal(drawn(narrow)["hidden1.linear"], drawn(deep)["hidden1.linear"])
    other = mlp()
    initialize(other, NormScheme(), "auto", lambda name: seeding.generator(1, "weights", name))
    assert not torch.equal(drawn(narrow)["hidden1.linear"], drawn(other)["hidden1.linear"])


def test_torchs_own_generator_plays_no_part():
    torch.manual_seed(1)
    a = mlp()
    torch.manual_seed(2)
    b = mlp()
    state = torch.get_rng_state()
    initialize(b, NormScheme(), "auto", streams)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_weight_norm_starts_from_the_draw_with_g_its_length():
    model = mlp(NormScheme(reparametrize=weight_norm))
    linear = model.hidden1.linear
    g, v = linear.parametrizations.weight.original0, linear.parametrizations.weight.original1
    assert torch.equal(v, mlp().hidden1.linear.weight)
    torch.testing.assert_close(g[:, 0], v.norm(dim=1))


# ---- model.init_std, model.init_scale


@pytest.mark.parametrize("std", [0.01, 0.05, 1.0])
def test_normal_has_its_standard_deviation_whatever_the_layer(std):
    for width in (100, 500):
        model = MLP(NormScheme(), (1, 20, 20), 100, hidden=[width])
        initialize(model, NormScheme(), "normal", streams, std=std)
        for w in drawn(model).values():
            assert w.std().item() == pytest.approx(std, rel=0.04)  # 10,000 draws or more: 0.7% is one sigma
            assert ((w / std) ** 4).mean().item() == pytest.approx(3, rel=0.15)


def test_normal_reaches_cells_and_is_001_if_nothing_else_is_said():
    model = RNN(NormScheme(), (1, 28, 28), 10, units=64)
    initialize(model, NormScheme(), "normal", streams)
    for w in drawn(model).values():
        assert w.std().item() == pytest.approx(0.01, rel=0.1)


def test_only_normal_asks_for_the_standard_deviation():
    a, b = mlp(), mlp()
    initialize(b, NormScheme(), "auto", streams, std=5.0)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("method", ["torch", "he", "glorot", "lecun", "orthogonal", "normal"])
def test_scale_multiplies_what_any_method_draws(method):
    scaled = mlp(width=20)
    initialize(scaled, NormScheme(), method, streams, scale=0.25)
    for name, w in drawn(mlp(method=method, width=20)).items():
        assert torch.equal(drawn(scaled)[name], 0.25 * w), name


def test_scale_multiplies_every_weight_and_nothing_else(norm_name, model_name, parts_of):
    made_of = parts_of(norm_name, model_name, normalize_output=False)
    try:
        plain, scaled = (made_of.model(made_of.scheme, (1, 8, 8), 5) for _ in range(2))
    except Unsupported as reason:
        pytest.skip(str(reason))
    initialize(plain, made_of.scheme, "auto", streams)
    initialize(scaled, made_of.scheme, "auto", streams, scale=2.0)
    weights, wanted = drawn(scaled), drawn(plain)
    assert weights
    for name, w in weights.items():
        assert torch.equal(w, 2 * wanted[name]), name  # a power of two: exact
    for (name, p), (_, q) in zip(plain.named_parameters(), scaled.named_parameters(), strict=True):
        if p.dim() < 2:
            assert torch.equal(p, q), name  # biases, gamma, beta


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


@pytest.mark.parametrize("value", [0.0, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("option", ["std", "scale"])
def test_a_value_that_is_not_above_zero_is_refused(option, value):
    with pytest.raises(ValueError, match=f"model.init_{option} must be above 0: got {value}"):
        initialize(MLP(NormScheme(), (1, 4, 4), 3, hidden=[5]), NormScheme(), "auto", streams, **{option: value})


def test_every_model_has_the_options(model_name, cell_of):
    options = cell_of(f"model={model_name}").config["model"]
    assert (options["init"], options["init_std"], options["init_scale"]) == ("auto", 0.01, 1.0)


@pytest.mark.parametrize("method", ["bogus", "", "He", "zeros"])
def test_an_unknown_method_is_named_with_the_others(method):
    with pytest.raises(ValueError, match=f"model.init is one of auto, he, .*: got {method}"):
        mlp(method=method)
