"""Blocks: what comes after what, and what they show."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.norms import BatchNorm, Block, LayerNorm, MeanOnlyBatchNorm, RecurrentBatchNorm, blocks, uses_batch
from normbench.norms.block import TENSORS, Recorded


def shown(block: Block, x: torch.Tensor) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    block.observer = lambda name, tensor: seen.update({name: tensor})
    block(x)
    block.observer = None
    return seen


def test_norm_before_the_activation():
    linear, norm, x = nn.Linear(4, 3), LayerNorm(3), torch.randn(5, 4)
    block = Block(linear, norm, nn.ReLU())
    wanted = [linear(x), norm(linear(x)), norm(linear(x)).relu()]
    assert torch.equal(block(x), wanted[2])
    seen = shown(block, x)
    assert list(seen) == ["linear", "normalized", "activation"] == list(TENSORS)
    assert all(torch.equal(a, b) for a, b in zip(seen.values(), wanted, strict=True))


def test_norm_after_the_activation():
    linear, norm, x = nn.Linear(4, 3), LayerNorm(3), torch.randn(5, 4)
    block = Block(linear, norm, nn.ReLU(), placement="after")
    wanted = [linear(x), linear(x).relu(), norm(linear(x).relu())]
    assert torch.equal(block(x), wanted[2])
    seen = shown(block, x)
    assert list(seen) == ["linear", "activation", "normalized"]
    assert all(torch.equal(a, b) for a, b in zip(seen.values(), wanted, strict=True))


def test_dropout_comes_last_and_is_not_shown():
    block = Block(nn.Linear(4, 100), None, nn.Sigmoid(), nn.Dropout(0.5))
    seen, y = shown(block, torch.randn(5, 4)), block(torch.randn(5, 4))
    assert (y == 0).float().mean() > 0.3
    assert (seen["activation"] != 0).all()
    assert (block.eval()(torch.randn(5, 4)) != 0).all()


@pytest.mark.parametrize(
    ("norm", "activation", "names"),
    [
        (None, None, ["linear"]),
        (None, nn.ReLU(), ["linear", "activation"]),
        (LayerNorm(3), None, ["linear", "normalized"]),
    ],
)
def test_a_tensor_that_equals_another_is_shown_once(norm, activation, names):
    assert list(shown(Block(nn.Linear(4, 3), norm, activation), torch.randn(5, 4))) == names


def test_blocks_are_found_in_their_order_however_deep():
    inner = nn.Sequential(Block(nn.Linear(2, 2)), nn.ReLU(), Block(nn.Linear(2, 2)))
    model = nn.Sequential(Block(nn.Linear(2, 2)), inner, Recorded())
    assert [name for name, _ in blocks(model)] == ["0", "1.0", "1.2", "2"]


def test_who_uses_the_batch():
    for norm in (BatchNorm(3), MeanOnlyBatchNorm(3), RecurrentBatchNorm(3, 2, "input"), nn.BatchNorm1d(3)):
        assert uses_batch(norm)
    for other in (LayerNorm(3), nn.GroupNorm(1, 3), nn.Linear(3, 3), nn.Dropout(0.5), nn.InstanceNorm2d(3)):
        assert not uses_batch(other)
