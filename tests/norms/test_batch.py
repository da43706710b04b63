"""Batch norm and mean-only batch norm against torch.nn and formulas, and in recurrent cells against loops over time."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from formulas import EXACT, SHAPES, axes, one_step, randomize
from torch import Tensor, nn

from normbench.errors import Unsupported
from normbench.norms import BatchNorm, MeanOnlyBatchNorm, VarianceOnlyBatchNorm
from normbench.norms.batch_renorm import BatchRenorm
from normbench.norms.ghost_batch import GhostBatchNorm
from normbench.norms.noisy_batch import NoisyBatchNorm

FLOAT = {"rtol": 1e-5, "atol": 1e-6}  # float32: seven digits, two of them lost in variances and other rounding


def reference(features: int, dims: int, **options: float) -> nn.Module:
    return (nn.BatchNorm1d if dims == 2 else nn.BatchNorm2d)(features, **options)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 5, 1, 1)])
@pytest.mark.parametrize(
    ("momentum", "dtype", "close"),
    [(0.1, torch.float32, FLOAT), (0.1, torch.float64, EXACT), (1.0, torch.float64, EXACT)],
)
def test_is_torchs_batch_norm_over_several_steps(shape, momentum, dtype, close, device):
    torch.manual_seed(0)
    ours = BatchNorm(5, momentum=momentum, eps=1e-3).to(device, dtype)
    theirs = reference(5, len(shape), momentum=momentum, eps=1e-3).to(device, dtype)
    randomize(ours), randomize(theirs)
    for step in range(3):
        x = (torch.randn(shape, dtype=dtype) * (step + 1) + 3 * step).to(device)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        up = torch.randn(shape, dtype=dtype).to(device)
        ours.zero_grad(), theirs.zero_grad()
        ours(a).backward(up), theirs(b).backward(up)
        torch.testing.assert_close(ours(a.detach()), theirs(b.detach()), **close)
        for mine, other in ((a, b), (ours.weight, theirs.weight), (ours.bias, theirs.bias)):
            torch.testing.assert_close(mine.grad, other.grad, **close)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, **close)
        torch.testing.assert_close(ours.running_var, theirs.running_var, **close)
        assert ours.num_batches_tracked == theirs.num_batches_tracked == 2 * (step + 1)
    ours.eval(), theirs.eval()
    before = copy.deepcopy(ours.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), **close)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 2, 2)])
def test_without_momentum_they_are_plain_averages_as_torchs(shape, device):
    torch.manual_seed(3)
    plain = BatchNorm(5, momentum=None).to(device, torch.float64)
    theirs = reference(5, len(shape), momentum=None).to(device, torch.float64)
    batches = [torch.randn(shape, dtype=torch.float64).to(device) * step + step for step in range(6)]
    for x in batches:
        torch.testing.assert_close(plain(x), theirs(x), **EXACT)
        for mine, other in zip(plain.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(mine, other, **EXACT)
    wanted = torch.stack([x.var(axes(x)) for x in batches]).mean(0)  # unbiased
    torch.testing.assert_close(plain.running_var, wanted, **EXACT)


SWITCHED_OFF = {
    "ghost batch of all": lambda n: GhostBatchNorm(5, virtual=n, momentum=0.3),
    "no corrections": lambda n: BatchRenorm(5, r_max=1.0, d_max=0.0, warmup_steps=0, momentum=0.3),
    "corrections not begun": lambda n: BatchRenorm(5, warmup_steps=100, momentum=0.3),
    "no noise": lambda n: NoisyBatchNorm(5, noise_mean=0, noise_scale=1, noise_spread=0, momentum=0.3),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SWITCHED_OFF)
def test_what_is_batch_norm_and_more_is_batch_norm_without_it(name, shape, device):
    torch.manual_seed(0)
    ours = randomize(SWITCHED_OFF[name](shape[0])).to(device, torch.float64)
    batch = randomize(BatchNorm(5, momentum=0.3)).to(device, torch.float64)
    for step in range(3):
        x = (torch.randn(shape, dtype=torch.float64) * (step + 1) + 3 * step).to(device)
        for a, b in zip(one_step(ours, x), one_step(batch, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.eval()(x), batch.eval()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "who"),
    [(BatchNorm, "BatchNorm"), (MeanOnlyBatchNorm, "Mean-only batch norm"), (NoisyBatchNorm, "BatchNorm"),
     (VarianceOnlyBatchNorm, "Variance-only batch norm"),
     (BatchRenorm, "Batch renormalization"), (partial(GhostBatchNorm, virtual=1), "Ghost batch norm")],
)  # fmt: skip
def test_one_value_per_feature_is_unsupported_in_training_alone(kind, who):
    cases = [(kind(4), (1, 4), ()), (kind(4), (1, 4, 1, 1), ())]
    if kind in (BatchNorm, MeanOnlyBatchNorm, VarianceOnlyBatchNorm):
        cases.append((kind.in_cell(4, 3, "hidden"), (1, 4), (0,)))
    for norm, shape, t in cases:
        with pytest.raises(Unsupported, match=f"{who} needs two values per feature to train: got a batch of 1. Use "):
            norm(torch.randn(shape), *t)
        assert not norm.num_batches_tracked.any()  # refused before anything was touched
        assert norm.eval()(torch.randn(shape), *t).shape == shape


def test_a_batch_of_two_keeps_only_a_sign():
    x = torch.randn(2, 50, dtype=torch.float64)
    y = BatchNorm(50, affine=False).double()(x)
    torch.testing.assert_close(y.abs(), 1 / (1 + 4e-5 / (x[0] - x[1]) ** 2).sqrt().expand(2, -1), **EXACT)
    assert torch.equal(y[0].sign(), (x[0] - x[1]).sign())


# ---- inside recurrent cells


class NaiveSteps:
    """A textbook loop: lists of statistics, one entry per time step."""

    def __init__(self, features: int, steps: int, momentum: float | None, eps: float, kind: type) -> None:
        self.counts = [0] * steps
        self.mean = [torch.zeros(features, dtype=torch.float64) for _ in range(steps)]
        self.var = [torch.ones(features, dtype=torch.float64) for _ in range(steps)]
        self.momentum, self.eps = momentum, eps
        self.divide, self.centre = kind is not MeanOnlyBatchNorm, kind is not VarianceOnlyBatchNorm

    def train(self, x: Tensor, t: int) -> Tensor:
        t = min(t, len(self.mean) - 1)
        mean, var = x.mean(0), x.var(0, correction=0)
        self.counts[t] += 1
        share = self.momentum or 1 / self.counts[t]  # None: plain averages
        self.mean[t] = (1 - share) * self.mean[t] + share * mean
        self.var[t] = (1 - share) * self.var[t] + share * x.var(0, correction=1)
        return (x - mean * self.centre) / ((var + self.eps).sqrt() if self.divide else 1)

    def evaluate(self, x: Tensor, t: int) -> Tensor:
        t = min(t, len(self.mean) - 1)
        return (x - self.mean[t] * self.centre) / ((self.var[t] + self.eps).sqrt() if self.divide else 1)


@pytest.mark.parametrize("momentum", [0.2, None])
@pytest.mark.parametrize(
    ("kind", "place"),
    [(BatchNorm, "input"), (BatchNorm, "state"), (MeanOnlyBatchNorm, "hidden"), (VarianceOnlyBatchNorm, "state")],
)
def test_recurrent_statistics_are_each_steps_own(kind, place, momentum, device):
    torch.manual_seed(8)
    options = {} if kind is MeanOnlyBatchNorm else {"eps": 1e-4}
    norm = kind.in_cell(4, 3, place, momentum=momentum, **options).to(device, torch.float64)
    loop = NaiveSteps(4, 3, momentum, 1e-4, kind)
    assert (norm.bias is not None) == (place == "state")
    gamma = 1.0 if norm.weight is None else norm.weight.detach().cpu()  # 0.1 as a float32 knows it
    for _ in range(3):
        for t in range(5):  # longer than there are statistics: the last ones serve
            x = torch.randn(6, 4, dtype=torch.float64) * (t + 1) + t
            torch.testing.assert_close(norm(x.to(device), t).cpu(), gamma * loop.train(x, t), **EXACT)
    torch.testing.assert_close(norm.running_mean.cpu(), torch.stack(loop.mean), **EXACT)
    if kind is not MeanOnlyBatchNorm:
        torch.testing.assert_close(norm.running_var.cpu(), torch.stack(loop.var), **EXACT)
    assert norm.num_batches_tracked.tolist() == [3, 3, 9]
    norm.eval()
    for t in range(5):
        x = torch.randn(1, 4, dtype=torch.float64)
        torch.testing.assert_close(norm(x.to(device), t).cpu(), gamma * loop.evaluate(x, t), **EXACT)


def test_recurrent_gamma_starts_at_a_tenth_and_acts_at_every_step():
    torch.manual_seed(10)
    norm = BatchNorm.in_cell(4, 3, "state")
    assert torch.equal(norm.weight, torch.full((4,), 0.1))
    assert torch.equal(norm.bias, torch.zeros(4))
    assert torch.equal(BatchNorm.in_cell(4, 3, "input", gamma=0.5).weight, torch.full((4,), 0.5))
    assert torch.equal(norm.running_mean, torch.zeros(3, 4))
    assert torch.equal(norm.running_var, torch.ones(3, 4))
    randomize(norm.double())
    for t in range(3):
        x = torch.randn(6, 4, dtype=torch.float64)
        wanted = norm.weight * (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() + norm.bias
        torch.testing.assert_close(norm(x, t), wanted, **EXACT)
    still = BatchNorm.in_cell(4, 3, "state", affine=False)
    assert still.bias is None
    assert not still.weight.requires_grad
    assert set(MeanOnlyBatchNorm(4).state_dict()) == {"bias", "running_mean", "num_batches_tracked"}
    assert list(MeanOnlyBatchNorm.in_cell(4, 3, "hidden").parameters()) == []  # the cell adds the one bias
    assert MeanOnlyBatchNorm.in_cell(4, 3, "state") is None


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("kind", [BatchNorm, MeanOnlyBatchNorm])
def test_shared_statistics_look_back_as_far_as_separate_ones(kind, steps):
    torch.manual_seed(11)
    norm = kind.in_cell(4, steps, "input", per_step=False, momentum=0.1).double()
    assert norm.running_mean.shape == (1, 4)
    x = torch.randn(6, 4, dtype=torch.float64) + 2
    means = []
    for t in range(steps):
        means.append((x + t).mean(0))
        norm(x + t, t)
    # After all steps of one update the old value has decayed to 0.9, and no step weighs more than 1/0.9 of another.
    share = 1 - 0.9 ** (1 / steps)
    weights = [share * (1 - share) ** (steps - 1 - t) for t in range(steps)]
    assert sum(weights) == pytest.approx(0.1)
    assert max(weights) / min(weights) < 1 / 0.9
    torch.testing.assert_close(norm.running_mean[0], sum(w * m for w, m in zip(weights, means, strict=True)), **EXACT)
    assert norm.num_batches_tracked.tolist() == [steps]
