"""Batch normalization: each unit standardised over the mini-batch, in blocks and inside recurrent cells."""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normbench.errors import Unsupported

ONE_VALUE = "{norm} needs two values per feature to train: got a batch of {n}. Use batch_size=2 or more, or norm=layer."


class RunningStatistics(_BatchNorm):
    """torch's batch norm, with what other norms over the batch need: statistics per time step, and an update of them.

    running <- (1 - momentum) running + momentum (the batch's mean, or its variance times m/(m-1))

    Another norm over the batch says in `by_batch` what training makes of a mini-batch.

    Args:
        features: C, the size of axis 1.
        eps: added to the variance.
        momentum: weight of a new batch, above 0 and at most 1; None for the plain average of all batches so far.
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0).
        steps: keep statistics [steps, C] and a count of batches for each time step, instead of [C] and one count.
    """

    over: tuple[str, ...] = ("examples", "height", "width")
    invariant_to: tuple[str, ...] = ("matrix scaled", "vector scaled", "data scaled", "data shifted")
    centres = True  # does it subtract the mean?
    by_itself = False  # may evaluation ask what a mini-batch with the example would have done (`given_example`)?
    own_share: float | None = None  # of an example in the statistics of its mini-batch, where evaluation does so
    called = "BatchNorm"  # in messages
    running_mean: Tensor
    running_var: Tensor | None
    num_batches_tracked: Tensor

    def __init__(
        self,
        features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        steps: int | None = None,
    ) -> None:
        super().__init__(features, eps, momentum, affine)
        if steps is not None:
            self.running_mean, self.running_var = torch.zeros(steps, features), torch.ones(steps, features)
            self.num_batches_tracked = torch.zeros(steps, dtype=torch.long)

    @classmethod
    def in_cell(
        cls,
        features: int,
        steps: int,
        place: str,
        *,
        per_step: bool = True,
        gamma: float = 0.1,
        momentum: float | None = 0.1,
        affine: bool = True,
        **options: Any,
    ) -> Self | None:
        """This norm inside a recurrent cell, called with (x [N, features], t): statistics per time step, one gamma.

        A gamma of 1 pushes the gates into saturation, and the gradient through time vanishes; 0.1 keeps it alive.
        On W_x x and W_h h there is no beta, because the cell adds one bias to their sum; on the cell's state there is.

        Args:
            steps: how many time steps have statistics of their own; later ones use the last one's.
            place: "input", "hidden" or "state".
            per_step: False shares one set of statistics over all steps. Its averages then move `steps` times in a
                training step, by so much less that they look back equally far and weigh all steps (nearly) alike.
            gamma: where gamma starts; without `affine` it stays there.

        Source: Cooijmans et al. 2016, arXiv:1603.09025, sections 3 and 4.
        """
        if momentum is not None and not per_step and steps > 1:
            momentum = 1 - (1 - momentum) ** (1 / steps)
        norm = cls(features, steps=steps if per_step else 1, momentum=momentum, affine=True, **options)
        if norm.weight is not None:
            nn.init.constant_(norm.weight, gamma).requires_grad_(affine)
        if place != "state" or not affine:
            norm.bias = None  # type: ignore[assignment]
        return norm

    def _check_input_dim(self, input: Tensor) -> None:
        """torch calls this before anything else: a feature with one value would equal its mean."""
        if self.training and input.numel() == input.shape[1]:
            raise Unsupported(ONE_VALUE.format(norm=self.called, n=len(input)))

    def forward(self, x: Tensor, t: int | None = None) -> Tensor:
        """Of a mini-batch, at time step `t` inside a recurrent cell: later ones than there are work with the last."""
        t = t if t is None else min(t, len(self.running_mean) - 1)
        if not self.training:
            row = ... if t is None else t
            mean, var = self.running_mean[row], None if self.running_var is None else self.running_var[row]
            if self.own_share is not None:
                mean, var = given_example(x, mean, var, self.own_share)
            return self.by_averages(x, mean, var)
        self._check_input_dim(x)
        y, mean, var = self.by_batch(x)
        self.update(mean, var, t)
        return y

    def by_averages(self, x: Tensor, mean: Tensor, var: Tensor | None) -> Tensor:
        """`x` normalised by these [C], or [N, C] of each example, gamma and beta included."""
        if mean.dim() == 1:
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        assert var is not None
        y = (x - as_image(mean, x)) * as_image(self.factor(var), x)
        return y if self.bias is None else y + as_image(self.bias, x)

    def factor(self, var: Tensor) -> Tensor:
        """gamma / sqrt(var + eps)."""
        factor = (var + self.eps).rsqrt()
        return factor if self.weight is None else factor * self.weight

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Any]:
        """`x` normalised by its own statistics, gamma and beta included, and its mean and unbiased variance [C]."""
        return self.standardised(x, self.weight, self.bias)

    def standardised(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """weight (x - mean) / sqrt(var + eps) + bias, and the mean and unbiased variance of x [C].

        With momentum 1 the kernel leaves both where it keeps its averages. They are zeros_like, because under vmap what
        it writes into views of new zeros is lost.
        """
        kept = self.running_mean if self.running_mean.dim() == 1 else self.running_mean[0]
        mean, var = torch.zeros_like(kept), torch.zeros_like(kept)
        return F.batch_norm(x, mean, var, weight, bias, True, 1.0, self.eps), mean, var

    def update(self, mean: Tensor, var: Tensor | None, t: int | None = None) -> None:
        """Feed one batch's mean and unbiased variance [C], without gradients (for time step `t`, if given)."""
        count, running_mean, running_var = self.num_batches_tracked, self.running_mean, self.running_var
        if t is not None:
            count, running_mean = count[t], running_mean[t]
            running_var = None if running_var is None else running_var[t]
        count.add_(1)
        share = self.momentum if self.momentum is not None else count.to(running_mean.dtype).reciprocal()
        # not lerp_, which vmap does slowly, member by member
        running_mean.copy_(torch.lerp(running_mean, mean.to(running_mean.dtype), share))
        if running_var is not None and var is not None:
            running_var.copy_(torch.lerp(running_var, var, share))


class BatchNorm(RunningStatistics):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and var over the batch (and space), per feature.

    In training, mean and var are the mini-batch's own (var biased: divided by m); in evaluation, the running averages
    of the mean and of the unbiased variance m/(m-1) var: torch.nn.BatchNorm1d and 2d in one. With momentum None they
    are plain averages over training, "the mean of the means, the mean of the variances" of the paper's algorithm 2.

    Args: as RunningStatistics.
    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: there is nothing to standardise.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2, section 3.2 for convolutions.
    """

    by_itself = True

    def forward(self, x: Tensor, t: int | None = None) -> Tensor:
        # torch updates averages in the same kernel; plain ones with a count read on the host, which vmap can't
        plain = t is None and self.momentum is not None and (self.training or self.own_share is None)
        return _BatchNorm.forward(self, x) if plain else super().forward(x, t)


class MeanOnlyBatchNorm(RunningStatistics):
    """y = x - mean + beta, mean over the batch (and space), per feature.

    Weight normalisation fixes the scale of a unit but not its mean; this fixes the mean. In training, `mean` is that of
    the mini-batch; in evaluation, its running average. The gradient through it is centred: its mean over the batch
    is 0.

    Args: as RunningStatistics.
    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: the result would be beta, whatever the input.
    Source: Salimans & Kingma 2016, arXiv:1602.07868, section 4.
    """

    invariant_to = ("data shifted",)
    by_itself = True
    called = "Mean-only batch norm"

    def __init__(self, features: int, **options: Any) -> None:
        super().__init__(features, eps=0.0, **options)
        self.weight = self.running_var = None  # type: ignore[assignment]

    @classmethod
    def in_cell(cls, features: int, steps: int, place: str, **options: Any) -> Self | None:
        """y = x - mean_t after W_x and W_h, as in a feed-forward layer: the cell adds the one bias. None on its state.

        No paper gives a recipe for recurrent cells: this is the direct reading of Salimans & Kingma's section 4 with
        the per-step statistics of Cooijmans et al. 2016. No weight matrix precedes the cell's state.
        """
        return None if place == "state" else super().in_cell(features, steps, place, **options)

    def by_averages(self, x: Tensor, mean: Tensor, var: Tensor | None) -> Tensor:
        return x - as_image(mean if self.bias is None else mean - self.bias, x)

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        mean = x.mean((0, *range(2, x.dim())), dtype=self.running_mean.dtype)  # float32, where autocast gives bfloat16
        return self.by_averages(x, mean, None), mean.detach(), None


class VarianceOnlyBatchNorm(RunningStatistics):
    """y = gamma x / sqrt(var + eps) + beta, var over the batch (and space), per feature.

    Batch norm without its centring. `var` is the variance about the mean, though no mean is subtracted, and no mean
    square: in training that of the mini-batch, biased; in evaluation the running average of m/(m-1) times it. A running
    mean is kept as well, for whoever measures statistics; no output depends on it.

    No paper gives a recipe for recurrent cells: there it is batch norm's.

    Args: as RunningStatistics.
    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: its variance is 0.
    Source: Zhang et al. 2023, Dive into Deep Learning, section 8.5, exercises: "a 'lite' version of batch
        normalization that only removes the mean, or alternatively one that only removes the variance".
    """

    invariant_to = ("matrix scaled", "vector scaled", "data scaled")
    centres = False
    by_itself = True
    called = "Variance-only batch norm"

    def by_averages(self, x: Tensor, mean: Tensor, var: Tensor | None) -> Tensor:
        assert var is not None
        y = x * as_image(self.factor(var), x)
        return y if self.bias is None else y + as_image(self.bias, x)

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.to(self.running_mean.dtype)  # float32, where autocast gives bfloat16
        var, mean = torch.var_mean(x, (0, *range(2, x.dim())), correction=0)
        m = x.numel() // x.shape[1]
        return self.by_averages(x, mean, var), mean.detach(), var.detach() * (m / (m - 1))


def as_image(numbers: Tensor, x: Tensor) -> Tensor:
    """[C] or [N, C], so that x [N, C, ...] may be calculated with it."""
    return numbers if x.dim() == 2 else numbers.view(*numbers.shape, *[1] * (x.dim() - 2))


def of_instances(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the positions of each feature of each example [N, C]."""
    if x.dim() == 2:
        return x, torch.zeros_like(x)
    var, mean = torch.var_mean(x, tuple(range(2, x.dim())), correction=0)
    return mean, var


def given_example(x: Tensor, mean: Tensor, var: Tensor | None, share: float) -> tuple[Tensor, Tensor | None]:
    """What the mini-batch of each example is expected to have: mean and biased variance [N, C].

        mean_i = (1 - a) mean + a own_mean_i
        var_i  = (1 - a) var_B + a own_var_i + a (1 - a) (own_mean_i - mean)^2

    a = 1/B is the share of one example in a mini-batch of B, own_mean_i and own_var_i are over its positions (own_var_i
    is 0 where it has one), and var_B = (m - 1)/m var is what the biased variance of mini-batches is on average, m their
    values per feature. These are exact expectations over the other B - 1 examples, were they drawn independently.

    That is the idea of Singh & Shrivastava: in training each example has a part in the statistics that it is normalised
    by, and with small mini-batches a large one. They let a, one for the mean and one for the variance, be estimated for
    each layer on training data, or set by a rule of thumb; here both are 1/B.

    Args:
        var: the running average of unbiased variances; None for a norm of the mean alone.
        share: a.

    Source: the idea, Singh & Shrivastava 2019, arXiv:1904.06031 ("EvalNorm"); the formula is derived.
    """
    own_mean, own_var = of_instances(x)
    given = torch.lerp(mean.expand_as(own_mean), own_mean, share)
    if var is None:
        return given, None
    biased = var * (1 - share / x.shape[2:].numel())  # (m - 1) / m, m = B positions
    return given, (1 - share) * biased + share * own_var + share * (1 - share) * (own_mean - mean).square()
