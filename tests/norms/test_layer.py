"""Norms of one example against torch.nn in float64, in blocks and inside recurrent cells. Formulas: every_scheme."""

from __future__ import annotations

import pytest
import torch
from formulas import compare
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import LayerNorm, RMSNorm
from normbench.norms.layer import DynamicErf, DynamicTanh, GroupNorm, InstanceNorm, LayerNorm2d

PER_STEP = ["group", "rms", "layer2d", "dynamic_tanh", "dynamic_erf", "layer"]


class OverChannels(nn.LayerNorm):
    """torch's layer norm of axis 1, wherever it is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class RMSAndBias(nn.RMSNorm):
    """torch's, over all features of [N, C], and a bias, which it has none of."""

    def __init__(self, features: int, eps: float) -> None:
        super().__init__(features, eps)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias


@pytest.mark.parametrize(
    ("ours", "theirs", "shapes"),
    [
        (lambda: LayerNorm(6, eps=1e-3), lambda: nn.LayerNorm(6, eps=1e-3), [(5, 6), (1, 6)]),
        (lambda: LayerNorm(6, eps=1e-3), lambda: nn.GroupNorm(1, 6, eps=1e-3), [(4, 6, 3, 2), (1, 6, 1, 1)]),
        (lambda: LayerNorm(1), lambda: nn.GroupNorm(1, 1), [(2, 1, 3, 3)]),
        (lambda: RMSNorm(6, eps=1e-3), lambda: RMSAndBias(6, eps=1e-3), [(4, 6), (1, 6)]),
        (lambda: LayerNorm2d(6, eps=1e-3), lambda: OverChannels(6, eps=1e-3), [(4, 6, 3, 2), (1, 6, 1, 1), (5, 6)]),
        (lambda: GroupNorm(6, groups=2, eps=1e-3), lambda: nn.GroupNorm(2, 6, eps=1e-3), [(1, 6), (4, 6, 3, 2)]),
        (lambda: GroupNorm(6, groups=4, channels_per_group=3), lambda: nn.GroupNorm(2, 6), [(1, 6), (4, 6, 3, 2)]),
        (lambda: GroupNorm(6, groups=1), lambda: LayerNorm(6), [(1, 6), (4, 6, 3, 2)]),
        (lambda: GroupNorm(6, groups=6), lambda: InstanceNorm(6), [(4, 6, 3, 2), (1, 6, 1, 2)]),
        (
            lambda: InstanceNorm(6, eps=1e-3),
            lambda: nn.InstanceNorm2d(6, eps=1e-3, affine=True),
            [(4, 6, 3, 2), (1, 6, 1, 2)],
        ),
    ],
)
def test_is_torchs_own(ours, theirs, shapes, device):
    for shape in shapes:
        compare(ours(), theirs(), shape, device)


def test_rms_norm_does_not_centre_and_dynamic_tanh_and_erf_start_at_a_half():
    y = RMSNorm(4, affine=False).double()(torch.full((2, 4), 7.0, dtype=torch.float64))
    torch.testing.assert_close(y, torch.ones_like(y), rtol=1e-6, atol=0)  # eps / 49 is lost
    found = {name: p.tolist() for name, p in DynamicTanh(2).named_parameters()}
    assert found == {"alpha": [0.5], "weight": [1, 1], "bias": [0, 0]}
    assert {name: p.tolist() for name, p in DynamicErf(2).named_parameters()} == {**found, "shift": [0]}
    assert DynamicErf(1)(torch.tensor([[1.0], [-4.0]])).flatten().tolist() == pytest.approx([0.5204999, -0.9953223])
    assert [name for name, _ in DynamicTanh(4, affine=False).named_parameters()] == ["alpha"]


# ---- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 4}, "norm.groups must divide the features of each normalised layer: got 4 for 10 features. "
         "Use one of 1, 2, 5, 10, or another width; model.normalize_output=false leaves the classes alone."),
        ({"groups": 2, "channels_per_group": 3}, "norm.channels_per_group must divide .* got 3 for 10 features"),
    ],
)  # fmt: skip
def test_groups_that_do_not_divide_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as said:
        GroupNorm(10, **options)
    assert not isinstance(said.value, Unsupported)  # a mistake, not a limit of the scheme


@pytest.mark.parametrize(
    ("norm", "shapes", "message"),
    [
        (LayerNorm(1), [(3, 1), (3, 1, 1, 1)], "LayerNorm needs two features to normalise over: got 1"),
        (RMSNorm(1), [(3, 1), (3, 1, 1, 1)], "RMSNorm needs two features to normalise over: got 1"),
        (LayerNorm2d(1), [(3, 1), (3, 1, 4, 4)], "LayerNorm needs two features to normalise over: got 1"),
        (GroupNorm(4, groups=4), [(3, 4), (3, 4, 1, 1)], "GroupNorm needs two values in a group to normalise over"),
        (InstanceNorm(5), [(3, 5), (3, 5, 1, 1)], "InstanceNorm needs two positions to normalise over: got one value"),
    ],
)
def test_one_value_is_unsupported(norm, shapes, message):
    for shape in shapes:
        with pytest.raises(Unsupported, match=message):
            norm(torch.randn(shape))


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


def test_in_a_cell_four_groups_normalise_gate_by_gate_and_instance_norm_has_no_place(scheme_of):
    x = torch.randn(3, 4 * 5, dtype=torch.float64)
    y = scheme_of("group", "norm.groups=4").recurrent_norm(20, 3, "input").double()(x, 0)
    for gate in y.chunk(4, dim=1):
        torch.testing.assert_close(gate.mean(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    with pytest.raises(Unsupported):
        scheme_of("instance").recurrent_norm(4, 3, "input")(torch.randn(5, 4), 0)
