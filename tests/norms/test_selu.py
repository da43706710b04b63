"""Self-normalising networks against Klambauer et al. 2017 (arXiv:1706.02515)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench import seeding
from normbench.models import initialize


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


def test_variance_contracts_to_one_layer_by_layer(parts_of, tensors_of):
    # Width 512 and one draw of the weights: 5% covers both (about 3 standard errors of a layer's variance).
    parts = parts_of("selu", "mlp", hidden=[512] * 16)
    model = parts.model(parts.scheme, (1, 16, 32), 10)
    initialize(model, parts.scheme, "auto", lambda name: seeding.generator(0, "weights", name))
    x = torch.randn(1024, 1, 16, 32, generator=seeding.generator(0, "images"))
    for start, wanted in ((3.0, [2.349, 1.942, 1.495, 1.161, 1.021]), (0.1, [0.150, 0.213, 0.367, 0.673, 0.944])):
        tensors = tensors_of(model, x * start**0.5)
        variances = [tensors[f"hidden{layer}", "activation"].var().item() for layer in (1, 2, 4, 8, 16)]
        assert variances == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(("rate", "scale", "shift"), [(0.05, 0.954844, 0.083936), (0.1, 0.921285, 0.161971)])
def test_alpha_dropout_keeps_mean_and_variance(rate, scale, shift, scheme_of):
    torch.manual_seed(0)
    dropout = scheme_of("selu").block(nn.Linear(3, 3), nn.ReLU, dropout=rate).dropout
    x = scheme_of("selu").activation()(torch.randn(1_000_000))
    y = dropout(x)
    # A million draws: the mean is known to 0.001, the variance to 0.0015 (one sigma). Plain dropout: 1 / (1 - rate).
    assert y.mean().item() == pytest.approx(0, abs=0.005)
    assert y.var().item() == pytest.approx(1, abs=0.008)
    dropped = torch.tensor(-1.7580993408473766 * scale + shift)
    kept = (y - (x * scale + shift)).abs() < 1e-4
    assert kept.float().mean().item() == pytest.approx(1 - rate, abs=0.002)
    torch.testing.assert_close(y[~kept], dropped.expand((~kept).sum()), rtol=0, atol=1e-4)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize(("shape", "fan_in"), [((500, 400), 400), ((256, 64, 3, 3), 64 * 9)])
def test_weights_start_as_lecun(shape, fan_in, scheme_of):
    w = torch.empty(shape)
    scheme_of("selu").init_(w, generator=seeding.generator(0, "w"))
    assert w.var().item() == pytest.approx(1 / fan_in, rel=0.02)  # 150,000 draws or more: 0.4% is one sigma
