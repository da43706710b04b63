"""Dynamic tanh against its formula; self-normalising networks against Klambauer et al. 2017 (arXiv:1706.02515)."""

from __future__ import annotations

import pytest
import torch
from formulas import EXACT, randomize
from torch import nn

from normbench import seeding
from normbench.models import initialize
from normbench.norms.activations import DynamicTanh


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3, 2)])
def test_dynamic_tanh_is_the_formula(shape, device):
    torch.manual_seed(0)
    norm = randomize(DynamicTanh(5, alpha=0.75)).to(device, torch.float64)
    x = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
    up = torch.randn(shape, dtype=torch.float64).to(device)
    view, others = (1, 5, *[1] * (len(shape) - 2)), (0, *range(2, len(shape)))
    gamma, tanh = norm.weight.detach().view(view), (0.75 * x.detach()).tanh()
    y = norm(x)
    y.backward(up)
    torch.testing.assert_close(y, gamma * tanh + norm.bias.view(view), **EXACT)
    slope = up * gamma * (1 - tanh**2)
    torch.testing.assert_close(x.grad, 0.75 * slope, **EXACT)
    torch.testing.assert_close(norm.alpha.grad, (slope * x.detach()).sum().view(1), **EXACT)
    torch.testing.assert_close(norm.weight.grad, (up * tanh).sum(others), **EXACT)
    torch.testing.assert_close(norm.bias.grad, up.sum(others), **EXACT)


def test_starts_at_half_one_and_zero(scheme_of):
    norm = scheme_of("dynamic_tanh").norm(4)
    assert (norm.alpha.item(), norm.weight.tolist(), norm.bias.tolist()) == (0.5, [1] * 4, [0] * 4)
    norm = scheme_of("dynamic_tanh", "norm.alpha=2", "norm.affine=false").norm(4)
    assert [(name, p.tolist()) for name, p in norm.named_parameters()] == [("alpha", [2.0])]


def test_the_bias_before_it_stays(scheme_of):
    # It moves x within the tanh, which no bias after the tanh can do.
    assert scheme_of("dynamic_tanh").block(nn.Linear(4, 3), nn.ReLU).linear.bias is not None


# ---- SELU


def test_zero_mean_and_unit_variance_are_a_fixed_point(scheme_of):
    # Integrated over the normal density on a grid fine enough for 9 digits.
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2) / (2 * torch.pi) ** 0.5 * (z[1] - z[0])
    y = scheme_of("selu").activation()(z)
    mean = (density * y).sum()
    assert mean.abs() < 1e-8
    assert ((density * y**2).sum() - mean**2).item() == pytest.approx(1, abs=1e-8)
    # and its derivative there, towards which the variance is drawn: 0.782648
    wider = scheme_of("selu").activation()(z * (1 + 1e-4) ** 0.5)
    slope = ((density * wider**2).sum() - (density * wider).sum() ** 2 - 1) / 1e-4
    assert slope.item() == pytest.approx(0.782648, abs=1e-3)


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        (3.0, [2.349, 1.942, 1.495, 1.161, 1.021]),
        (0.3, [0.381, 0.464, 0.617, 0.831, 0.974]),
        (0.1, [0.150, 0.213, 0.367, 0.673, 0.944]),
    ],
)
def test_variance_contracts_to_one_layer_by_layer(start, wanted, parts_of, tensors_of):
    # Width 512 and one draw of the weights: 5% covers both (about 3 standard errors of a layer's variance).
    parts = parts_of("selu", "mlp", hidden=[512] * 16)
    model = parts.model(parts.scheme, (1, 16, 32), 10)
    initialize(model, parts.scheme, "auto", lambda name: seeding.generator(0, "weights", name))
    x = torch.randn(1024, 1, 16, 32, generator=seeding.generator(0, "images")) * start**0.5
    tensors = tensors_of(model, x)
    variances = [tensors[f"hidden{layer}", "activation"].var().item() for layer in (1, 2, 4, 8, 16)]
    assert variances == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(("rate", "scale", "shift"), [(0.05, 0.954844, 0.083936), (0.1, 0.921285, 0.161971)])
def test_alpha_dropout_keeps_mean_and_variance(rate, scale, shift, scheme_of):
    torch.manual_seed(0)
    dropout = scheme_of("selu").block(nn.Linear(3, 3), nn.ReLU, dropout=rate).dropout
    x = scheme_of("selu").activation()(torch.randn(1_000_000))
    y = dropout(x)
    # A million draws: the mean is known to 0.001, the variance to 0.0015 (one sigma).
    assert y.mean().item() == pytest.approx(0, abs=0.005)
    assert y.var().item() == pytest.approx(1, abs=0.008)
    dropped = torch.tensor(-1.7580993408473766 * scale + shift)
    kept = (y - (x * scale + shift)).abs() < 1e-4
    assert kept.float().mean().item() == pytest.approx(1 - rate, abs=0.002)
    torch.testing.assert_close(y[~kept], dropped.expand((~kept).sum()), rtol=0, atol=1e-4)
    assert torch.equal(dropout.eval()(x), x)


def test_plain_dropout_would_not():
    torch.manual_seed(0)
    y = nn.Dropout(0.1)(nn.SELU()(torch.randn(1_000_000)))
    assert y.var().item() == pytest.approx(1 / 0.9, abs=0.01)


def test_weights_start_as_lecun(scheme_of):
    w = torch.empty(500, 400)
    scheme_of("selu").init_(w, generator=seeding.generator(0, "w"))
    assert w.var().item() == pytest.approx(1 / 400, rel=0.02)  # 200,000 draws: 0.3% is one sigma
    kernel = torch.empty(256, 64, 3, 3)
    scheme_of("selu").init_(kernel, generator=seeding.generator(0, "kernel"))
    assert kernel.var().item() == pytest.approx(1 / (64 * 9), rel=0.02)
