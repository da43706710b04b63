"""`time_steps` against a loop over what the cell shows, in every scheme and model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from normbench.instruments import Probe, TimeSteps
from normbench.models import RNN
from normbench.norms import batch_statistics, preserve_state
from normbench.training.loop import Step


def measured(model: nn.Module, probe: Probe) -> list[dict[str, Any]]:
    return list(TimeSteps().measure(Step(0, None, None), model, probe))


def by_hand(model: RNN, images: Tensor, bn_mode: str) -> dict[tuple[str, int], tuple[float, float]]:
    """(tensor, time) -> mean and standard deviation, in float64."""
    seen: dict[str, list[np.ndarray]] = {}
    model.cell.observer = lambda kind, value: seen.setdefault(kind, []).append(value.cpu().double().numpy().copy())
    with preserve_state(model) if bn_mode == "running" else batch_statistics(model):
        model(images)
    model.cell.observer = None
    return {(kind, t): (z.mean(), z.std()) for kind, values in seen.items() for t, z in enumerate(values)}


def test_every_scheme_in_every_model(norm_name, model_name, network_of, batch_of, device):
    model = network_of(norm_name, model_name, dropout=0.25).to(device)
    images, labels = (tensor.to(device) for tensor in batch_of(40))
    probe = Probe(model, images, labels, batch_size=40)  # one batch: the bn_modes "probe" and "batch" are the same
    before = [tensor.clone() for tensor in model.state_dict().values()], [m.training for m in model.modules()]
    rows = measured(model, probe)
    assert all(torch.equal(a, b) for a, b in zip(before[0], model.state_dict().values(), strict=True))
    assert before[1] == [module.training for module in model.modules()]
    if not isinstance(model, RNN):
        assert not rows
        return
    assert rows
    for bn_mode in probe.bn_modes:
        wanted = by_hand(model, images, bn_mode)
        found = {(row["tensor"], row["time"]): row for row in rows if row["bn_mode"] == bn_mode}
        assert len(found) == sum(row["bn_mode"] == bn_mode for row in rows)
        assert list(found) == [(kind, t) for kind in dict.fromkeys(k for k, _ in wanted) for t in range(8)]  # 8 rows
        for key, row in found.items():
            assert set(row) == {"layer", "tensor", *TimeSteps.columns}
            assert row["layer"] == "cell"
            assert (row["mean"], row["std"]) == pytest.approx(wanted[key], rel=1e-4, abs=1e-5)


def test_long_sequences_are_looked_at_now_and_then(network_of, batch_of):
    model = network_of("none", "rnn", sequence="pixels")  # 64 steps
    images, labels = batch_of(20)
    rows = measured(model, Probe(model, images, labels, 10, positions=5))
    wanted = by_hand(model, images, "probe")
    assert [row["time"] for row in rows if row["tensor"] == "activation"] == [0, 16, 32, 47, 63]
    for row in rows:
        assert (row["mean"], row["std"]) == pytest.approx(wanted[row["tensor"], row["time"]], rel=1e-4, abs=1e-5)


def test_a_sequence_that_diverges_shows_when(network_of, batch_of):
    model = network_of("none", "rnn", cell="tanh")
    images, labels = batch_of(20)
    images[3, 0, 4] = torch.nan  # the fifth row of an image
    rows = measured(model, Probe(model, images, labels, 10))
    assert [np.isnan(row["mean"]) for row in rows if row["tensor"] == "activation"] == [False] * 4 + [True] * 4
