"""What the probe sees, against a law: a SELU network pulls the variance of its layers towards 1."""

from __future__ import annotations

import pytest
import torch
from looking import with_units

from normbench.instruments import Activations, Probe
from normbench.training.loop import Step

# nu -> E[selu(z)^2] - E[selu(z)]^2, z ~ N(0, nu), mean and variance taken together from layer to layer: variance after
# so many layers, from Gaussian inputs of mean 0 and variance 3. Klambauer et al. 2017, arXiv:1706.02515, eq. 4, 5
# for omega = 0, tau = 1.
PREDICTED = {1: 2.349, 2: 1.942, 4: 1.495, 8: 1.161, 16: 1.021}


def test_the_variance_of_a_selu_network_contracts_as_predicted(network_of):
    model = network_of("selu", "mlp_deep", depth=16, width=512, shape=(1, 16, 32))
    images = 3.0**0.5 * torch.randn(1024, 1, 16, 32, generator=torch.Generator().manual_seed(0))
    probe = Probe(model, images, torch.zeros(len(images), dtype=torch.long), batch_size=64)
    rows = with_units(Activations()).measure(Step(0, None, None), model, probe)
    variance = {row["layer"]: row["std"] ** 2 for row in rows if row["tensor"] == "activation"}
    assert [variance[f"hidden{layer}"] for layer in PREDICTED] == pytest.approx(list(PREDICTED.values()), rel=0.05)
