"""Ghost batch norm against batch norm over slices of the batch, in float64."""

from __future__ import annotations

import pytest
import torch
from formulas import EXACT, one_step, randomize
from torch import nn

from normbench.errors import Unsupported
from normbench.norms import BatchNorm
from normbench.norms.ghost_batch import GhostBatchNorm


@pytest.mark.parametrize(
    ("shape", "virtual", "sizes"),
    [
        ((12, 5), 4, [4, 4, 4]),
        ((10, 5), 4, [4, 4, 2]),
        ((9, 5), 4, [4, 5]),  # one value per feature would carry no information: it joins the one before
        ((5, 5), 4, [5]),
        ((5, 5, 1, 1), 4, [5]),
        ((9, 5, 2, 2), 4, [4, 4, 1]),  # one example has four
        ((3, 5, 2, 2), 1, [1, 1, 1]),
        ((3, 5), 2, [3]),
    ],
)
def test_each_ghost_batch_is_normalised_by_itself(shape, virtual, sizes, device):
    torch.manual_seed(0)
    ours = randomize(GhostBatchNorm(5, virtual=virtual, momentum=0.3)).to(device, torch.float64)
    shift = torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))
    x = (torch.randn(shape, dtype=torch.float64) * 3 + shift).to(device)
    parts, means, variances = [], [], []
    for ghost in x.split(sizes):
        batch = randomize(BatchNorm(5, momentum=1.0)).to(device, torch.float64)
        parts.append(batch(ghost))
        means.append(batch.running_mean * len(ghost) / len(x))
        variances.append(batch.running_var * len(ghost) / len(x))
    torch.testing.assert_close(ours(x), torch.cat(parts), **EXACT)
    torch.testing.assert_close(ours.running_mean, 0.3 * sum(means), **EXACT)
    torch.testing.assert_close(ours.running_var, 0.7 + 0.3 * sum(variances), **EXACT)
    assert ours.num_batches_tracked == 1  # once per step, whatever the number of ghost batches


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(("shape", "sizes"), [((9, 5), [4, 5]), ((9, 5, 2, 2), [4, 4, 1]), ((12, 5), [4, 4, 4])])
def test_the_papers_averages_are_those_of_ghost_batches_one_after_the_other(shape, sizes, momentum, device):
    """Hoffer et al. 2017, algorithm 1. The naive twin: torch's batch norm, called with each ghost batch."""
    torch.manual_seed(0)
    ours = GhostBatchNorm(5, virtual=4, update_per="ghost_batch", momentum=momentum)
    theirs = nn.BatchNorm1d(5, momentum=momentum) if len(shape) == 2 else nn.BatchNorm2d(5, momentum=momentum)
    ours, theirs = randomize(ours).to(device, torch.float64), randomize(theirs).to(device, torch.float64)
    weights = [0.7 ** (len(sizes) - 1 - i) * 0.3 for i in range(len(sizes))]  # the last ghost batch weighs most
    for step in range(2):
        x = (torch.randn(shape, dtype=torch.float64) * (step + 1) + step).to(device)
        before = ours.running_mean.clone()
        torch.testing.assert_close(ours(x), torch.cat([theirs(ghost) for ghost in x.split(sizes)]), **EXACT)
        for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(mine, other, **EXACT)
        if momentum is not None:
            means = [ghost.transpose(0, 1).flatten(1).mean(1) for ghost in x.split(sizes)]
            wanted = 0.7 ** len(sizes) * before + sum(w * mean for w, mean in zip(weights, means, strict=True))
            torch.testing.assert_close(ours.running_mean, wanted, **EXACT)
    assert ours.num_batches_tracked == 2 * len(sizes)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), **EXACT)


def test_a_ghost_batch_is_no_larger_than_the_batch_and_has_two_values():
    norm = GhostBatchNorm(5, virtual=32)
    with pytest.raises(ValueError, match=r"norm.virtual must be at most the batch of 8: got 32. Use norm.virtual=8"):
        norm(torch.randn(8, 5))
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(8, 5)).shape == (8, 5)
    with torch.no_grad():  # an instrument's few images
        x = torch.randn(8, 5)
        torch.testing.assert_close(norm.train()(x), BatchNorm(5)(x))
    with pytest.raises(Unsupported, match=r"norm.virtual must be 2 or more where a unit has one value per example"):
        GhostBatchNorm(5, virtual=1)(torch.randn(4, 5))


@pytest.mark.parametrize("place", ["input", "state"])
def test_in_a_cell_it_is_batch_norm_in_a_cell_over_ghost_batches(place, device):
    torch.manual_seed(0)
    whole = GhostBatchNorm.in_cell(5, 3, place, virtual=6, momentum=0.3).to(device, torch.float64)
    batch = BatchNorm.in_cell(5, 3, place, momentum=0.3).to(device, torch.float64)
    batch_of_three = BatchNorm.in_cell(5, 3, place).to(device, torch.float64)
    parts = GhostBatchNorm.in_cell(5, 3, place, virtual=3).to(device, torch.float64)
    for t in (0, 1, 2, 4):  # longer than there are statistics: the last ones serve
        x = torch.randn(6, 5, dtype=torch.float64).to(device) + t
        for a, b in zip(one_step(whole, x, t), one_step(batch, x, t), strict=True):
            torch.testing.assert_close(a, b, **EXACT)
        with torch.no_grad():
            wanted = torch.cat([batch_of_three(x[:3], t), batch_of_three(x[3:], t)])
        torch.testing.assert_close(parts(x, t), wanted, **EXACT)
    assert parts.num_batches_tracked.tolist() == [1, 1, 2]
    assert whole.eval()(torch.randn(1, 5, dtype=torch.float64, device=device), 0).shape == (1, 5)
