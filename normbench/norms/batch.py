"""Batch normalization: each unit standardised over the mini-batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.norms.statistics import RunningStatistics, require_two_values


class BatchNorm(RunningStatistics):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and var over the batch (and space), per feature.

    In training, mean and var are the mini-batch's own (var biased: divided by m); in evaluation, the moving averages.
    Two averages of the batch statistics are kept, both of the mean and of the unbiased variance m/(m-1) var:
    exponential (`running_mean`, `running_var`: what torch.nn.BatchNorm keeps) and plain (`average_mean`, `average_var`:
    "the mean of the means, the mean of the variances" of the paper's algorithm 2).

    Args:
        features: C, the size of axis 1.
        eps: added to the variance.
        momentum: weight of the new batch in the exponential averages (1 - decay).
        affine: learn gamma (`weight`, starts at 1) and beta (`bias`, starts at 0).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with one value per feature: there is nothing to standardise.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2, section 3.2 for convolutions.
    """

    centres_units = True

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__((features,), momentum)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        require_two_values(x, "BatchNorm")
        # With momentum 1 the kernel leaves the batch's own mean and unbiased variance: both averages are fed from them.
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_mean)
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self.update(mean, var)
        return y

    def extra_repr(self) -> str:
        return f"{len(self.running_mean)}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"


class RecurrentBatchNorm(RunningStatistics):
    """Batch normalization inside a recurrent cell: statistics for each time step, one gamma, starting at 0.1.

    A gamma of 1 pushes the gates into saturation, and the gradient through time vanishes; 0.1 keeps it alive.
    On W_x x and W_h h there is no beta, because the cell adds one bias to their sum; on the cell's state there is.

    Args:
        features: size of axis 1.
        steps: how many time steps have statistics of their own; later ones use the last one's.
        place: "input", "hidden" or "state".
        per_step: False shares one set of statistics over all steps. Its averages then move `steps` times in a training
            step, by so much less that they look back equally far and weigh all time steps (nearly) alike.
        gamma: where gamma starts.

    Shape: ([N, features], t) -> [N, features].
    Raises: Unsupported in training with one value per feature.
    Source: Cooijmans et al. 2016, arXiv:1603.09025, sections 3 and 4.
    """

    def __init__(
        self,
        features: int,
        steps: int,
        place: str,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        per_step: bool = True,
        gamma: float = 0.1,
    ) -> None:
        super().__init__((steps if per_step else 1, features), momentum, updates=1 if per_step else steps)
        self.eps = eps
        self.weight = nn.Parameter(torch.full((features,), float(gamma)), requires_grad=affine)
        self.bias = nn.Parameter(torch.zeros(features)) if affine and place == "state" else None

    def forward(self, x: Tensor, t: int) -> Tensor:
        t = min(t, len(self.running_mean) - 1)
        if not self.training:
            mean, var = self.running_mean[t], self.running_var[t]
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        require_two_values(x, "BatchNorm")
        mean, var = torch.zeros_like(self.running_mean[t]), torch.zeros_like(self.running_var[t])
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        self.update(mean, var, t)
        return y
