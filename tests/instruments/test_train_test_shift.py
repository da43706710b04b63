"""`train_test_shift` beside loops of its own: distances by numpy, accuracies and statistics by plain passes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from short_run import short_run
from torch import nn

from normbench import seeding
from normbench.data import canonical, prepare
from normbench.data.corruptions import corrupt
from normbench.instruments import Row, TrainTestShift
from normbench.norms import exact_statistics, load_statistics
from normbench.training.evaluation import sample_batches

RNG = np.random.default_rng(0)
SOURCE = canonical(
    "x",
    "abcde",
    (RNG.integers(0, 256, (200, 1, 8, 8), dtype=np.uint8), np.arange(200) % 5),
    (RNG.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8), np.arange(20) % 5),
)
DATA = prepare(SOURCE, name="x", validation=100)
TRAIN, VALIDATION = DATA.train, DATA.validation
FEW: dict[str, Any] = {"corruptions": ["brightness", "noise"], "severities": [3], "images": [4, 40, 400]}


def looked_at(instrument: TrainTestShift, model: nn.Module, **options: Any) -> list[Row]:
    run = short_run(model, updates=None, train=TRAIN, validation=VALIDATION, **options)
    run.probe = run.probe.of(*VALIDATION.batch(torch.arange(30)))
    rows = run.measure(instrument)
    assert [index for index in range(11) if instrument.due(index)] == [10]
    return rows


def corrupted(name: str, severity: int, places: Any) -> torch.Tensor:
    rows = VALIDATION.index[torch.as_tensor(places)]
    return VALIDATION.scaled(corrupt(VALIDATION.images[rows], name, severity, rows))


def w1_scaled(now: np.ndarray, then: np.ndarray) -> float:
    """Mean over the units of [N, units] that vary in either."""
    found = []
    for a, b in zip(now.T.astype(float), then.T.astype(float), strict=True):
        if scale := np.sqrt((a.var() + b.var()) / 2):
            found.append(np.abs(np.sort(a) - np.sort(b)).mean() / scale)
    return float(np.mean(found))


def inside(model: nn.Module, images: torch.Tensor) -> dict[str, np.ndarray]:
    """What goes into each linear layer, in evaluation."""
    seen: dict[str, np.ndarray] = {}
    hooks = [
        block.linear.register_forward_hook(lambda m, x, y, name=name: seen.update({name: x[0].numpy().copy()}))
        for name, block in model.named_children()
        if hasattr(block, "linear")
    ]
    with torch.no_grad():
        copy_of = model.eval()(images)
    model.train()
    for hook in hooks:
        hook.remove()
    assert len(copy_of) == len(images)
    return seen


def with_statistics_of(model: nn.Module, images: torch.Tensor) -> nn.Module:
    model = copy.deepcopy(model)
    load_statistics(model, exact_statistics(model, images))
    return model


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_numbers_are_those_of_plain_loops(norm, network_of):
    model = short_run(network_of(norm, "mlp"), train=TRAIN, lr=0.01, updates=5).model
    rows = looked_at(TrainTestShift(**FEW), model)
    training = sample_batches(TRAIN, 30, 30, torch.device("cpu"))[0][0]
    n_values = [0, 4, 40] if norm == "batch" else [0]  # 400 exceeds half of the validation images
    measured = list(range(60))
    spare = (60 + torch.randperm(40, generator=seeding.generator(0, "re-estimated"))).tolist()
    for name, severity in (("none", 0), ("brightness", 3), ("noise", 3)):
        these = [r for r in rows if (r["corruption"], r["severity"]) == (name, severity)]
        whole = {r.get("images", 0): r for r in these if not r["layer"]}
        assert list(whole) == n_values
        for n, row in whole.items():
            assert row["statistics"] == ("re-estimated" if n else "training")
            used = with_statistics_of(model, corrupted(name, severity, spare[:n])) if n else model
            with torch.no_grad():
                logits = used.eval()(corrupted(name, severity, measured))
            labels = VALIDATION.labels[VALIDATION.index[measured]]
            assert row["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
            assert row["loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
            inputs = {r["layer"]: r for r in these if r["tensor"] == "input" and (r.get("images", 0)) == n}
            if n in (0, n_values[-1]):
                now, then = inside(used, corrupted(name, severity, range(30))), inside(model, training)
                assert inputs.keys() == now.keys() == {"hidden1", "hidden2", "output"}
                for layer, row_of in inputs.items():
                    wanted = w1_scaled(now[layer], then[layer])
                    assert row_of["w1_scaled_mean"] == pytest.approx(wanted, rel=1e-4), (name, layer, n)
                    assert row_of["units"] == now[layer].shape[1]
            else:
                assert not inputs
        model.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": ["fog"]}, r"corruption must be one of contrast, .* invert: got fog"),
        ({"severities": [0]}, r"corruption.severity must be a whole number, 1 to 5: got 0"),
        ({"images": [1]}, r"TrainTestShift.images are whole numbers, 2 or more: got \[1\]"),
        ({"examples": 1}, "needs examples=2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainTestShift(**options)
