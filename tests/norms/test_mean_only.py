"""Mean-only batch norm against its formula, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from normbench.errors import Unsupported
from normbench.norms import MeanOnlyBatchNorm, RecurrentMeanOnlyBatchNorm, recurrent_mean_only

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64: sums over some 100 values lose at most three digits of sixteen
SHAPES = [(6, 5), (2, 5), (4, 5, 3, 2), (1, 5, 4, 4), (2, 5, 1, 1)]


def axes(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.05, 0.1, 1.0])
def test_is_the_formula_over_several_steps(shape, momentum, device):
    torch.manual_seed(0)
    norm = MeanOnlyBatchNorm(5, momentum=momentum).to(device, torch.float64)
    beta = torch.linspace(-1, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        norm.bias.copy_(beta)
    running, means = torch.zeros(5, dtype=torch.float64), []
    for step in range(4):
        x = torch.randn(shape, dtype=torch.float64) * (step + 1) + 3 * step
        mean = x.sum(axes(x)) / (x.numel() // 5)
        means.append(mean)
        running = (1 - momentum) * running + momentum * mean
        wanted = x - per_channel(mean, x) + per_channel(beta, x)
        torch.testing.assert_close(norm(x.to(device)).cpu(), wanted, **EXACT)
        torch.testing.assert_close(norm.running_mean.cpu(), running, **EXACT)
        torch.testing.assert_close(norm.average_mean.cpu(), torch.stack(means).mean(0), **EXACT)
        assert norm.num_batches_tracked == step + 1
    before = copy.deepcopy(norm.eval().state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    wanted = x - per_channel(running, x) + per_channel(beta, x)
    torch.testing.assert_close(norm(x.to(device)).cpu(), wanted, **EXACT)
    assert all(torch.equal(value, before[key]) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_centred(shape, device):
    torch.manual_seed(1)
    norm = MeanOnlyBatchNorm(5).to(device, torch.float64)
    x = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
    up = (torch.randn(shape, dtype=torch.float64) + 2).to(device)
    norm(x).backward(up)
    torch.testing.assert_close(x.grad, up - per_channel(up.mean(axes(up)), up), **EXACT)
    assert x.grad.mean(axes(up)).abs().max() < 1e-14
    torch.testing.assert_close(norm.bias.grad, up.sum(axes(up)), **EXACT)


def test_starts_at_zero_and_keeps_no_variance():
    norm = MeanOnlyBatchNorm(4)
    assert set(norm.state_dict()) == {"bias", "running_mean", "sum_mean", "num_batches_tracked"}
    assert not any(value.any() for value in norm.state_dict().values())
    assert list(MeanOnlyBatchNorm(4, affine=False).parameters()) == []


def test_leaves_the_variance_alone():
    x = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([0.1, 1, 10, 100])
    torch.testing.assert_close(MeanOnlyBatchNorm(4).double()(x).var(0), x.var(0), **EXACT)


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1)])
def test_one_value_per_feature_is_unsupported_in_training_alone(shape):
    norm = MeanOnlyBatchNorm(4)
    with pytest.raises(
        Unsupported, match="Mean-only batch norm needs two values per feature to train: got a batch of 1"
    ):
        norm(torch.randn(shape))
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(shape)).shape == shape


def test_recurrent_means_are_each_steps_own(device):
    torch.manual_seed(2)
    norm = RecurrentMeanOnlyBatchNorm(4, 3, "input", momentum=0.2).to(device, torch.float64)
    assert list(norm.parameters()) == []  # the cell adds the one bias
    running = [torch.zeros(4, dtype=torch.float64) for _ in range(3)]
    for _ in range(3):
        for t in range(5):  # longer than there are statistics: the last ones serve
            x = torch.randn(6, 4, dtype=torch.float64) + t
            running[min(t, 2)] = 0.8 * running[min(t, 2)] + 0.2 * x.mean(0)
            torch.testing.assert_close(norm(x.to(device), t).cpu(), x - x.mean(0), **EXACT)
    torch.testing.assert_close(norm.running_mean.cpu(), torch.stack(running), **EXACT)
    assert norm.num_batches_tracked.tolist() == [3, 3, 9]
    norm.eval()
    for t in range(5):
        x = torch.randn(1, 4, dtype=torch.float64)
        torch.testing.assert_close(norm(x.to(device), t).cpu(), x - running[min(t, 2)], **EXACT)


def test_shared_mean_looks_back_as_far_as_separate_ones():
    norm = RecurrentMeanOnlyBatchNorm(2, 4, "hidden", momentum=0.1, per_step=False).double()
    for t in range(4):
        norm(torch.ones(3, 2, dtype=torch.float64), t)
    torch.testing.assert_close(norm.running_mean, torch.full((1, 2), 0.1, dtype=torch.float64), **EXACT)


def test_there_is_none_on_the_cells_state():
    assert recurrent_mean_only(4, 3, "state") is None
    assert isinstance(recurrent_mean_only(4, 3, "input", momentum=0.2), RecurrentMeanOnlyBatchNorm)


def test_recurrent_one_example_is_unsupported_in_training_alone():
    norm = RecurrentMeanOnlyBatchNorm(4, 3, "hidden")
    with pytest.raises(Unsupported, match="needs two values per feature to train: got a batch of 1"):
        norm(torch.randn(1, 4), 0)
    assert norm.eval()(torch.randn(1, 4), 0).shape == (1, 4)
