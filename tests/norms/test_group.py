"""Group norm against torch.nn, against layer and instance norm at its ends, and against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import GroupNorm, InstanceNorm, LayerNorm

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen


def randomize(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2.0, len(norm.weight)))
        norm.bias.copy_(torch.linspace(-1.0, 1.0, len(norm.bias)))
    return norm


def compare(ours: nn.Module, theirs: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    """Outputs and all gradients."""
    torch.manual_seed(0)
    randomize(ours.to(device, torch.float64)), randomize(theirs.to(device, torch.float64))
    a = (torch.randn(shape, dtype=torch.float64) * 3 + 1).to(device).requires_grad_()
    b, up = a.detach().clone().requires_grad_(), torch.randn(shape, dtype=torch.float64).to(device)
    y, wanted = ours(a), theirs(b)
    y.backward(up), wanted.backward(up)
    torch.testing.assert_close(y, wanted, **EXACT)
    for mine, other in ((a, b), (ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        torch.testing.assert_close(mine.grad, other.grad, **EXACT)


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (4, 6, 3, 2)])
def test_is_torchs_norm(shape, device):
    compare(GroupNorm(6, groups=2, eps=1e-3), nn.GroupNorm(2, 6, eps=1e-3), shape, device)
    compare(GroupNorm(6, groups=4, channels_per_group=3), nn.GroupNorm(2, 6), shape, device)


@pytest.mark.parametrize("shape", [(5, 6), (4, 6, 3, 2)])
def test_one_group_is_layer_norm(shape, device):
    compare(GroupNorm(6, groups=1), LayerNorm(6), shape, device)


def test_as_many_groups_as_channels_are_instance_norm(device):
    compare(GroupNorm(6, groups=6), InstanceNorm(6), (4, 6, 3, 2), device)


@pytest.mark.parametrize("shape", [(5, 6), (4, 6, 3, 2)])
def test_is_the_formula(shape):
    torch.manual_seed(1)
    norm = randomize(GroupNorm(6, groups=3, eps=0.1).double())
    x = torch.randn(shape, dtype=torch.float64) * 3 + 2
    wanted = torch.empty_like(x)
    for example, out in zip(x, wanted, strict=True):
        for group in range(3):
            mine: Tensor = example[2 * group : 2 * group + 2]
            mean = mine.sum() / mine.numel()
            var = ((mine - mean) ** 2).sum() / mine.numel()
            for c in range(2):
                k = 2 * group + c
                out[k] = norm.weight[k].detach() * (mine[c] - mean) / (var + 0.1) ** 0.5 + norm.bias[k].detach()
    torch.testing.assert_close(norm(x).detach(), wanted, **EXACT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 4}, "norm.groups must divide the features of each normalised layer: got 4 for 10 features. "
         "Use one of 1, 2, 5, 10, or another width; model.normalize_output=false leaves the classes alone."),
        ({"groups": 0}, "norm.groups must divide .* got 0"),
        ({"groups": 2, "channels_per_group": 3}, "norm.channels_per_group must divide .* got 3 for 10 features"),
        ({"groups": 2, "channels_per_group": 2.5}, "norm.channels_per_group must divide .* got 2.5"),
    ],
)  # fmt: skip
def test_groups_that_do_not_divide_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as said:
        GroupNorm(10, **options)
    assert not isinstance(said.value, Unsupported)  # a mistake, not a limit of the scheme


@pytest.mark.parametrize(("shape", "groups"), [((3, 4), 4), ((3, 4, 1, 1), 4), ((3, 1), 1)])
def test_one_value_per_group_is_unsupported(shape, groups):
    with pytest.raises(Unsupported, match="GroupNorm needs two values in a group to normalise over: got 1"):
        GroupNorm(shape[1], groups=groups)(torch.randn(shape))


def test_without_affine_there_are_no_parameters():
    assert list(GroupNorm(4, groups=2, affine=False).parameters()) == []
