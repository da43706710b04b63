"""Weight norm, weight standardization and the data-dependent start, against their formulas."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from formulas import EXACT
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import NormScheme, blocks, weight_norm
from normbench.norms.weight import data_dependent_init, weight_standardization

GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # what ReLU takes from a normal variable's standard deviation
NAMES = {"bias", "parametrizations.weight.original0", "parametrizations.weight.original1"}
LAYERS = pytest.mark.parametrize("layer", [lambda: nn.Linear(6, 4), lambda: nn.Conv2d(3, 4, 3)], ids=["linear", "conv"])


def parts(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.parametrizations.weight.original0, layer.parametrizations.weight.original1


@LAYERS
def test_weight_norm_starts_unchanged_with_g_the_length_of_the_weight(layer):
    plain = layer().double()
    weight = plain.weight.detach().clone()
    g, v = parts(weight_norm(plain))
    length = (weight**2).sum(tuple(range(1, weight.dim())), keepdim=True).sqrt()  # over all axes but the units'
    torch.testing.assert_close(g.detach(), length, **EXACT)
    torch.testing.assert_close(v.detach(), weight, **EXACT)
    torch.testing.assert_close(plain.weight.detach(), weight, **EXACT)
    assert {name for name, _ in plain.named_parameters()} == NAMES


# ---- weight standardization


@LAYERS
def test_standardized_weights_have_mean_zero_and_the_length_of_the_gain(layer):
    torch.manual_seed(0)
    layer = weight_standardization(layer().double(), gain=1.5)
    w = layer.weight.detach().flatten(1)
    torch.testing.assert_close(w.mean(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(w.norm(dim=1), torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(w.var(1, correction=0) * w.shape[1], torch.full((4,), 1.5**2, dtype=torch.float64))
    assert {name for name, _ in layer.named_parameters()} == NAMES


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


def test_a_signal_keeps_its_size_through_a_relu_network():
    # Without the centring of the weights, means would add up layer by layer and variances go astray.
    torch.manual_seed(3)
    t = torch.randn(1000, 300)
    for _ in range(10):
        t = weight_standardization(nn.Linear(300, 300, bias=False))(t.relu())
        # 300 units: a layer's variance is known to some percent, and the errors of ten multiply.
        assert t.var(0).mean().item() == pytest.approx(1, rel=0.25)


def test_setting_a_standardized_weight_sets_v_and_keeps_the_length():
    layer = weight_standardization(nn.Linear(6, 4).double(), gain=1.0)
    with torch.no_grad():
        parts(layer)[0].fill_(7)
    wanted = torch.randn(4, 6, dtype=torch.float64)
    layer.weight = wanted
    assert torch.equal(parts(layer)[1].detach(), wanted)
    assert torch.equal(parts(layer)[0].detach(), torch.ones(4, 1, dtype=torch.float64))
    centred = wanted - wanted.mean(1, keepdim=True)
    torch.testing.assert_close(layer.weight.detach(), centred / centred.norm(dim=1, keepdim=True))


def test_weights_that_are_all_the_same_stay_finite_and_one_input_is_unsupported():
    layer = weight_standardization(nn.Linear(6, 4))
    layer.weight = torch.full((4, 6), 0.3)
    layer(torch.randn(3, 6)).sum().backward()
    assert not layer.weight.abs().max() > 1e-4
    assert parts(layer)[1].grad.isfinite().all()
    with pytest.raises(Unsupported, match="Weight standardization needs two inputs to a unit: got 1"):
        weight_standardization(nn.Linear(1, 4))


# ---- the data-dependent start


def pre_activations(tensors: dict[tuple[str, str], Tensor], model: nn.Module) -> dict[str, Tensor]:
    """What enters each block's activation: the last of `linear` and `normalized`; without recurrent cells."""
    recurrent = {name for name, block in blocks(model) if block.recurrent}
    return {layer: t for (layer, kind), t in tensors.items() if kind != "activation" and layer not in recurrent}


@pytest.mark.parametrize(
    ("name", "model_kind", "normalize_output"),
    [("none", "cnn", True), ("weight", "mlp", True), ("weight", "cnn", False), ("weight_mean_only", "cnn", True),
     ("weight_mean_only", "rnn", False)],
)  # fmt: skip
def test_every_pre_activation_is_standardised(
    name, model_kind, normalize_output, network_of, scheme_of, batch_of, tensors_of, device
):
    model = network_of(name, model_kind, dropout=0.5, normalize_output=normalize_output).to(device)
    images = batch_of(100)[0].to(device) * 3 + 1
    before = pre_activations(tensors_of(model, images), model)
    assert any(t.var(correction=0).sub(1).abs() > 0.1 for t in before.values())
    scheme_of(name).data_dependent_init(model, images)
    after = pre_activations(tensors_of(model, images), model)
    assert after.keys() == before.keys()
    for layer, t in after.items():
        over = (0, *range(2, t.dim()))
        assert t.mean(over).abs().max() < 1e-4, layer
        assert t.std(over, correction=0).sub(1).abs().max() < 1e-4, layer


def test_the_start_is_the_papers_formula():
    torch.manual_seed(0)
    linear, x = weight_norm(nn.Linear(6, 4).double()), torch.randn(50, 6, dtype=torch.float64) + 2
    with torch.no_grad():
        linear.parametrizations.weight.original0.copy_(torch.rand(4, 1) + 0.5)
        linear.bias.copy_(torch.randn(4))
    v = linear.parametrizations.weight.original1.detach().clone()
    model = nn.Sequential(NormScheme().block(linear, nn.ReLU))
    data_dependent_init(model, x)
    t = x @ (v / v.norm(dim=1, keepdim=True)).T
    g, b = 1 / t.std(0, correction=0), -t.mean(0) / t.std(0, correction=0)
    torch.testing.assert_close(linear.parametrizations.weight.original0.detach()[:, 0], g)
    torch.testing.assert_close(linear.bias.detach(), b)
    assert torch.equal(linear.parametrizations.weight.original1, v)


def test_plain_and_normalised_weights_start_as_the_same_function(network_of, batch_of):
    # The paper's baseline without normalisation has the same start.
    images, models = batch_of(100)[0], [network_of(name, "cnn").eval() for name in ("none", "weight")]
    for model in models:
        data_dependent_init(model, images)
    torch.testing.assert_close(models[0](images), models[1](images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["none", "weight_mean_only"])
def test_the_start_leaves_everything_else_as_it_was(name, network_of, batch_of, device):
    model = network_of(name, "rnn", dropout=0.5).to(device)
    images = batch_of(50)[0].to(device)
    model(images).sum().backward()
    model.output.eval()

    def snapshot() -> dict[str, Any]:
        state: dict[str, Any] = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("output")}
        state |= {f"gradient {k}": p.grad.clone() for k, p in model.named_parameters()}
        state |= {f"mode {k}": torch.tensor(m.training) for k, m in model.named_modules()}
        state |= {f"asks {k}": torch.tensor(p.requires_grad) for k, p in model.named_parameters()}
        hooks = torch.tensor(len(model.output._forward_hooks))
        return state | {"random numbers": torch.get_rng_state(), "hooks": hooks}

    before = snapshot()  # the cell's weights are part of it: recurrent cells are left alone
    data_dependent_init(model, images)
    after = snapshot()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    with pytest.raises(RuntimeError):
        data_dependent_init(model, images[..., :-1])
    assert all(torch.equal(value, snapshot()[key]) for key, value in before.items())


def test_units_that_do_not_vary_are_left_alone():
    torch.manual_seed(1)
    model = nn.Sequential(NormScheme().block(nn.Linear(6, 4), nn.ReLU), NormScheme().block(nn.Linear(4, 3)))
    with torch.no_grad():
        model[0].linear.weight[1] = 0
    still, x = copy.deepcopy(model[0].linear), torch.randn(50, 6)
    data_dependent_init(model, x)
    assert torch.equal(model[0].linear.weight[1], still.weight[1])
    assert torch.equal(model[0].linear.bias[1], still.bias[1])
    assert not torch.equal(model[0].linear.weight[0], still.weight[0])
    unchanged = copy.deepcopy(model.state_dict())
    data_dependent_init(model, x[:1].expand(50, 6) * 1000)  # nothing varies but for rounding
    assert all(torch.equal(value, unchanged[key]) for key, value in model.state_dict().items())
