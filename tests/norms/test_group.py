"""Group and instance norm against torch.nn, against layer norm at one end, and against their formulas in float64."""

from __future__ import annotations

import pytest
import torch
from formulas import compare
from torch import nn

from normbench.errors import Unsupported
from normbench.norms import LayerNorm
from normbench.norms.group import GroupNorm, InstanceNorm


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (4, 6, 3, 2)])
def test_is_torchs_norm_and_layer_norm_with_one_group(shape, device):
    compare(GroupNorm(6, groups=2, eps=1e-3), nn.GroupNorm(2, 6, eps=1e-3), shape, device)
    compare(GroupNorm(6, groups=4, channels_per_group=3), nn.GroupNorm(2, 6), shape, device)
    compare(GroupNorm(6, groups=1), LayerNorm(6), shape, device)


@pytest.mark.parametrize("shape", [(4, 6, 3, 2), (1, 6, 1, 2)])
def test_as_many_groups_as_channels_are_instance_norm_which_is_torchs(shape, device):
    compare(GroupNorm(6, groups=6), InstanceNorm(6), shape, device)
    compare(InstanceNorm(6, eps=1e-3), nn.InstanceNorm2d(6, eps=1e-3, affine=True), shape, device)


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


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1, 1)])
def test_one_position_is_unsupported_as_in_every_mlp_and_every_cell(shape, scheme_of):
    with pytest.raises(Unsupported, match="InstanceNorm needs two positions to normalise over: got one value per unit"):
        InstanceNorm(5)(torch.randn(shape))
    with pytest.raises(Unsupported):
        scheme_of("instance").recurrent_norm(4, 3, "input")(torch.randn(5, 4), 0)


def test_in_a_cell_four_groups_normalise_gate_by_gate(scheme_of):
    x = torch.randn(3, 4 * 5, dtype=torch.float64)
    y = scheme_of("group", "norm.groups=4").recurrent_norm(20, 3, "input").double()(x, 0)
    for gate in y.chunk(4, dim=1):
        torch.testing.assert_close(gate.mean(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
