"""Loss and accuracy in inference, against a loop of the test's own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from small_run import in_training, rows, run_around, split

from normbench.instruments import Fit


def test_loss_and_accuracy_are_those_of_inference(norm_name, network_of):
    train, validation = split(700), split(30, seed=1)
    network = in_training(network_of(norm_name, "mlp", dropout=0.5), train)
    fit = Fit()
    probe = run_around(fit, network, train, validation)
    [row] = rows(fit, 3, network, probe)
    copy = deepcopy(network).double().eval()
    for name, images in {"train": train, "validation": validation}.items():
        with torch.no_grad():
            logits = copy(images.images.double())
        assert row[f"{name}_loss"] == pytest.approx(F.cross_entropy(logits, images.labels).item(), rel=1e-5)
        assert row[f"{name}_accuracy"] == (logits.argmax(1) == images.labels).double().mean().item()
    assert row["images"] == 700
    assert network.training
