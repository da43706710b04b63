"""Switchable normalization with all weight on one kind of statistics: then it is torch's norm of that kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.norms import SwitchableNorm


@pytest.mark.parametrize(
    ("chosen", "norm", "shape"),
    [
        (0, nn.InstanceNorm2d(6), (4, 6, 5, 3)),
        (1, nn.GroupNorm(1, 6), (4, 6, 5, 3)),
        (2, nn.BatchNorm2d(6), (4, 6, 5, 3)),
        (1, nn.LayerNorm(6), (4, 6)),
        (2, nn.BatchNorm1d(6), (4, 6)),
    ],
)
def test_all_weight_on_one(chosen: int, norm: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, theirs = SwitchableNorm(6).double(), norm.double()
    with torch.no_grad():
        ours.mean_logits[chosen], ours.var_logits[chosen] = 100.0, 100.0
    for training in (True, True, False):
        x = torch.randn(shape, dtype=torch.float64) * 2 + 3
        torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x), rtol=1e-12, atol=1e-12)
    if chosen == 2:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(ours.get_buffer(name), theirs.get_buffer(name), rtol=1e-12, atol=1e-12)


def test_weights_start_equal_and_mean_and_variance_have_their_own() -> None:
    norm = SwitchableNorm(6)
    assert {part: w.item() for part, (w, _) in norm.shares(space=True).items()} == pytest.approx(
        {"instance": 1 / 3, "layer": 1 / 3, "batch": 1 / 3}
    )
    with torch.no_grad():
        norm.var_logits.copy_(torch.tensor([5.0, 0.0, 1.0]))
    dense = norm.shares(space=False)
    assert [*dense] == ["layer", "batch"]
    assert [v.item() for pair in dense.values() for v in pair] == pytest.approx(
        [0.5, 1 / (1 + torch.e), 0.5, torch.e / (1 + torch.e)]
    )
