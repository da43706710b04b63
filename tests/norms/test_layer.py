"""Layer and RMS norm against torch.nn and against their formulas in float64; norms without memory in cells."""

from __future__ import annotations

import pytest
import torch
from formulas import EXACT, assert_same, compare, randomize
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import LayerNorm, RMSNorm
from normbench.norms.layer import LayerNorm2d

SHAPES = [(6, 5), (1, 5), (4, 5, 3, 2), (2, 5, 1, 1)]
PER_STEP = ["group", "rms", "layer2d", "dynamic_tanh", "layer"]


def naive(x: Tensor, gain: Tensor, bias: Tensor, eps: float, centred: bool = True) -> Tensor:
    """Example by example."""
    out = []
    for example in x:
        mean = example.sum() / example.numel() if centred else 0
        var = ((example - mean) ** 2).sum() / example.numel()
        view = (-1, *[1] * (example.dim() - 1))
        out.append(gain.view(view) * (example - mean) / (var + eps).sqrt() + bias.view(view))
    return torch.stack(out)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 5, 1, 1)])
def test_layer_norm_is_torchs(shape, device):
    theirs = nn.LayerNorm(5, eps=1e-3) if len(shape) == 2 else nn.GroupNorm(1, 5, eps=1e-3)
    compare(LayerNorm(5, eps=1e-3), theirs, shape, device)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [1e-30, 1e-5, 0.1])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_is_the_formula(kind, shape, eps, device):
    torch.manual_seed(1)
    norm = randomize(kind(5, eps=eps)).to(device, torch.float64)
    x = (torch.randn(shape, dtype=torch.float64) * 3 + 2).to(device).requires_grad_()
    for training in (True, False):  # the batch plays no part
        y = norm.train(training)(x)
        wanted = naive(x, norm.weight, norm.bias, eps, centred=kind is LayerNorm)
        assert_same(y, wanted, (x, norm.weight, norm.bias))


def test_rms_norm_is_torchs_where_the_bias_is_zero_and_does_not_centre(device):
    x = torch.randn(6, 5, dtype=torch.float64).to(device)
    norm, theirs = RMSNorm(5, eps=1e-3).double(), nn.RMSNorm(5, eps=1e-3).double()
    torch.testing.assert_close(norm.to(device)(x), theirs.to(device)(x), **EXACT)
    y = RMSNorm(4, affine=False).double()(torch.full((2, 4), 7.0, dtype=torch.float64))
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-6, atol=0)  # eps / 49 is lost


@pytest.mark.parametrize("shape", [(4, 5, 3, 2), (1, 5, 1, 1), (6, 5)])
def test_layer_norm_of_pixels_is_torchs_over_the_channels(shape, device):
    torch.manual_seed(0)
    ours = randomize(LayerNorm2d(5, eps=1e-3).to(device, torch.float64))
    theirs = randomize(nn.LayerNorm(5, eps=1e-3).to(device, torch.float64))
    a = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
    b = a.detach().clone().requires_grad_()
    pixels, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if len(shape) == 4 else ((0, 1), (0, 1))
    wanted = theirs(b.permute(pixels).contiguous()).permute(back)
    assert_same(ours(a), wanted, (a, ours.weight, ours.bias), (b, theirs.weight, theirs.bias))


def test_layer2d_is_layer_norm_without_pixels_and_another_norm_with_them():
    norm, other = LayerNorm2d(5).double(), LayerNorm(5).double()
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(norm(x[:, :, 0, 0]), other(x[:, :, 0, 0]), **EXACT)
    assert (norm(x) - other(x)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(LayerNorm, (3, 1)), (LayerNorm, (3, 1, 1, 1)), (RMSNorm, (3, 1)), (RMSNorm, (3, 1, 1, 1)),
     (LayerNorm2d, (3, 1)), (LayerNorm2d, (3, 1, 4, 4))],
)  # fmt: skip
def test_one_value_is_unsupported(kind, shape):
    with pytest.raises(Unsupported, match="Norm needs two features to normalise over: got 1"):
        kind(1)(torch.randn(shape))


def test_one_channel_with_space_is_fine():
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(LayerNorm(1).double()(x), naive(x, torch.ones(1), torch.zeros(1), 1e-5), **EXACT)


# ---- inside recurrent cells


@pytest.mark.parametrize("name", PER_STEP)
@pytest.mark.parametrize("place", ["input", "hidden", "state"])
def test_in_a_cell_it_is_the_blocks_norm_at_every_step(name, place, scheme_of):
    torch.manual_seed(0)
    scheme = scheme_of(name)
    norm, block_norm = scheme.recurrent_norm(8, 3, place).double(), scheme.norm(8).double()
    with torch.no_grad():
        for key, parameter in norm.norm.named_parameters():
            parameter.copy_(torch.linspace(0.5, 2.0, len(parameter)))
            getattr(block_norm, key).copy_(parameter)
    assert (norm.norm.bias is not None) == (place == "state")  # elsewhere the cell's own bias does its work
    x = torch.randn(3, 8, dtype=torch.float64)
    for t in (0, 2, 99):
        assert torch.equal(norm(x, t), block_norm(x))
    assert list(norm.buffers()) == []


def test_options_reach_the_cells_norms(scheme_of):
    assert scheme_of("group", "norm.groups=2").recurrent_norm(8, 3, "state").norm.num_groups == 2
    assert scheme_of("group", "norm.channels_per_group=2").recurrent_norm(8, 3, "state").norm.num_groups == 4
    for name in PER_STEP:
        words = ["norm.affine=false"] + ["norm.eps=0.5"] * (name != "dynamic_tanh")
        norm = scheme_of(name, *words).recurrent_norm(8, 3, "state").norm
        assert (norm.weight, norm.bias) == (None, None)
        assert name == "dynamic_tanh" or norm.eps == 0.5
