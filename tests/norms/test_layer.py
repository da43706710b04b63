"""Layer norm against torch.nn and against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import LayerNorm, RecurrentLayerNorm

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen
FLOAT = {"rtol": 1e-5, "atol": 1e-6}  # float32: seven digits, two of them lost where two kernels round differently


def naive(x: Tensor, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Example by example."""
    out = []
    for example in x:
        mean = example.sum() / example.numel()
        var = ((example - mean) ** 2).sum() / example.numel()
        view = (-1, *[1] * (example.dim() - 1))
        out.append(gain.view(view) * (example - mean) / (var + eps).sqrt() + bias.view(view))
    return torch.stack(out)


def randomize(norm: nn.Module) -> None:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, len(norm.weight)))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, len(norm.bias)))


@pytest.mark.parametrize("shape", [(6, 5), (1, 5), (4, 5, 3, 2), (1, 5, 1, 1)])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, FLOAT), (torch.float64, EXACT)])
@pytest.mark.parametrize("training", [True, False])
def test_is_torchs_norm(shape, dtype, close, training, device):
    torch.manual_seed(0)
    ours = LayerNorm(5, eps=1e-3).to(device, dtype).train(training)
    theirs = (nn.LayerNorm(5, eps=1e-3) if len(shape) == 2 else nn.GroupNorm(1, 5, eps=1e-3)).to(device, dtype)
    randomize(ours), randomize(theirs)
    a = (torch.randn(shape, dtype=dtype) * 3 + 1).to(device).requires_grad_()
    b, up = a.detach().clone().requires_grad_(), torch.randn(shape, dtype=dtype).to(device)
    y, wanted = ours(a), theirs(b)
    y.backward(up), wanted.backward(up)
    torch.testing.assert_close(y, wanted, **close)
    for mine, other in ((a, b), (ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        torch.testing.assert_close(mine.grad, other.grad, **close)


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3, 2), (2, 5, 1, 1)])
@pytest.mark.parametrize("eps", [1e-30, 1e-5, 0.1])
def test_is_the_formula(shape, eps, device):
    torch.manual_seed(1)
    norm = LayerNorm(5, eps=eps).to(device, torch.float64)
    randomize(norm)
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 2).to(device).requires_grad_()
    gain, bias = norm.weight.detach().clone().requires_grad_(), norm.bias.detach().clone().requires_grad_()
    y, wanted, up = norm(x), naive(x, gain, bias, eps), torch.randn(shape, dtype=torch.float64).to(device)
    torch.testing.assert_close(y, wanted, **EXACT)
    got = torch.autograd.grad(y, (x, norm.weight, norm.bias), up)
    for a, b in zip(got, torch.autograd.grad(wanted, (x, gain, bias), up), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_starts_as_pure_standardising_and_remembers_nothing():
    norm = LayerNorm(4)
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(norm.bias, torch.zeros(4))
    assert list(norm.buffers()) == []
    assert list(LayerNorm(4, affine=False).parameters()) == []


@pytest.mark.parametrize("shape", [(3, 1), (3, 1, 1, 1)])
def test_one_value_per_example_is_unsupported(shape):
    with pytest.raises(Unsupported, match="LayerNorm needs two features to normalise over: got 1"):
        LayerNorm(1)(torch.randn(shape))


def test_one_channel_with_space_is_fine():
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    y = LayerNorm(1).double()(x)
    torch.testing.assert_close(y, naive(x, torch.ones(1), torch.zeros(1), 1e-5), **EXACT)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 5), c=st.integers(2, 8), side=st.sampled_from([0, 1, 3]),
    scale=st.floats(0.01, 1000), shift=st.floats(-100, 100), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_any_example_comes_out_standardised_whatever_its_scale(n, c, side, scale, shift, seed):
    g = torch.Generator().manual_seed(seed)
    shape = (n, c, side, side) if side else (n, c)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    norm = LayerNorm(c, affine=False, eps=1e-30).double()
    y = norm(x * scale + shift).flatten(1)
    assert y.mean(1).abs().max() < 1e-9  # |shift| / std may be 1e4, and rarely 1e6, times 1e-16
    torch.testing.assert_close(y, norm(x).flatten(1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("place", ["input", "hidden", "state"])
def test_recurrent_is_the_same_at_every_step(place):
    torch.manual_seed(2)
    norm = RecurrentLayerNorm(8, 3, place, eps=1e-4).double()
    bias = dict(norm.named_parameters()).get("norm.bias")
    assert (bias is not None) == (place == "state")  # on W_x x and W_h h the cell's own bias does its work
    with torch.no_grad():
        norm.norm.weight.copy_(torch.linspace(0.5, 2.0, 8))
        if bias is not None:
            bias.copy_(torch.linspace(-1, 1, 8))
    x = torch.randn(3, 8, dtype=torch.float64)
    wanted = naive(x, norm.norm.weight, torch.zeros(8) if bias is None else bias, 1e-4)
    for t in (0, 2, 99):
        torch.testing.assert_close(norm(x, t), wanted, **EXACT)
    assert list(norm.buffers()) == []
