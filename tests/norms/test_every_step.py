"""Norms without statistics inside recurrent cells: the same at every step, their bias on the state alone."""

from __future__ import annotations

import pytest
import torch

NAMES = ["group", "rms", "layer2d", "dynamic_tanh", "layer"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["input", "hidden", "state"])
def test_is_the_blocks_norm_at_every_step(name, place, scheme_of):
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
    for name in NAMES:
        words = ["norm.affine=false"] + ["norm.eps=0.5"] * (name != "dynamic_tanh")
        norm = scheme_of(name, *words).recurrent_norm(8, 3, "state").norm
        assert (norm.weight, norm.bias) == (None, None)
        assert name == "dynamic_tanh" or norm.eps == 0.5


def test_group_norm_with_four_groups_normalises_gate_by_gate(scheme_of):
    x = torch.randn(3, 4 * 5, dtype=torch.float64)
    y = scheme_of("group", "norm.groups=4").recurrent_norm(20, 3, "input").double()(x, 0)
    for gate in y.chunk(4, dim=1):
        torch.testing.assert_close(gate.mean(1), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
