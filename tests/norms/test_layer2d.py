"""Layer norm at each pixel against torch.nn.LayerNorm over the last axis, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normbench.errors import Unsupported
from normbench.norms import LayerNorm, LayerNorm2d

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def randomize(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, len(norm.weight)))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, len(norm.bias)))
    return norm


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (1, 5, 1, 1), (6, 5)])
def test_is_torchs_norm_over_the_channels(shape, device):
    torch.manual_seed(0)
    ours = randomize(LayerNorm2d(5, eps=1e-3).to(device, torch.float64))
    theirs = randomize(nn.LayerNorm(5, eps=1e-3).to(device, torch.float64))
    x, up = (torch.randn(shape, dtype=torch.float64).to(device) for _ in range(2))
    a = x.clone().requires_grad_()
    y = ours(a)
    assert y.shape == shape
    y.backward(up)
    pixels = (0, 2, 3, 1) if len(shape) == 4 else (0, 1)
    b = x.permute(pixels).reshape(-1, 5).clone().requires_grad_()  # one row for each pixel
    wanted = theirs(b)
    wanted.backward(up.permute(pixels).reshape(-1, 5))
    torch.testing.assert_close(y.permute(pixels).reshape(-1, 5), wanted, **EXACT)
    torch.testing.assert_close(a.grad.permute(pixels).reshape(-1, 5), b.grad, **EXACT)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, **EXACT)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, **EXACT)


def test_is_layer_norm_without_pixels_and_another_norm_with_them():
    norm, other = LayerNorm2d(5).double(), LayerNorm(5).double()
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(norm(x[:, :, 0, 0]), other(x[:, :, 0, 0]), **EXACT)
    assert (norm(x) - other(x)).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(3, 1), (3, 1, 4, 4)])
def test_one_channel_is_unsupported(shape):
    with pytest.raises(Unsupported, match="LayerNorm needs two features to normalise over: got 1"):
        LayerNorm2d(1)(torch.randn(shape))


def test_without_affine_there_are_no_parameters():
    assert list(LayerNorm2d(4, affine=False).parameters()) == []
