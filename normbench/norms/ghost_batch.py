"""Ghost batch normalization: batch normalization over parts of the batch, as if it were smaller."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from normbench.errors import Unsupported
from normbench.norms.batch import BatchNorm, RecurrentBatchNorm, RunningStatistics

Normalized = tuple[Tensor, Tensor, Tensor]  # y, and the mean and unbiased variance [C] of x


class GhostBatchNorm(BatchNorm):
    """Batch normalization of each `virtual` consecutive examples by themselves: the "ghost batches" of the batch.

    It separates the batch that is normalised over from the batch of the update. If `virtual` does not divide the batch,
    the last ghost batch is smaller; a rest of one value per feature joins the one before it. The averages advance once
    per step, by the mean over the ghost batches of their statistics, each weighed by its examples.

    Args:
        virtual: examples in a ghost batch, 1 or more (one alone needs more than one position).

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with a batch smaller than `virtual`, or one value per feature in a ghost batch.
    Source: Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, section 4 (algorithm 1).
    """

    called = "Ghost batch norm"

    def __init__(
        self, features: int, *, virtual: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True
    ) -> None:
        super().__init__(features, eps=eps, momentum=momentum, affine=affine)
        self.virtual = require_virtual(virtual)

    forward = RunningStatistics.forward

    def by_batch(self, x: Tensor) -> Normalized:
        return ghost_batch_norm(x, self.virtual, super().by_batch)


class RecurrentGhostBatchNorm(RecurrentBatchNorm):
    """Ghost batches inside a recurrent cell: RecurrentBatchNorm over each `virtual` consecutive examples.

    No paper gives a recipe for recurrent cells: it is Cooijmans et al. 2016 with the batch cut into ghost batches.

    Shape: ([N, features], t) -> [N, features].
    Raises: as GhostBatchNorm.
    """

    called = "Ghost batch norm"

    def __init__(self, features: int, steps: int, place: str, *, virtual: int, **options: float) -> None:
        super().__init__(features, steps, place, **options)  # type: ignore[arg-type]
        self.virtual = require_virtual(virtual)

    def by_batch(self, x: Tensor) -> Normalized:
        return ghost_batch_norm(x, self.virtual, super().by_batch)


def ghost_batch_norm(x: Tensor, virtual: int, by_batch: Callable[[Tensor], Normalized]) -> Normalized:
    """`x` normalised by ghost batches, with their average mean and unbiased variance [C]."""
    n = len(x)
    # Without gradients it is no training step: instruments may look at fewer images, which then are one ghost batch.
    if virtual > n and torch.is_grad_enabled():
        raise Unsupported(
            f"norm.virtual must be at most the batch of {n}: got {virtual}. Use norm.virtual={n} or less."
        )
    ghosts = list(x.split(virtual))
    if len(ghosts) > 1 and ghosts[-1].numel() == x.shape[1]:
        ghosts[-2:] = [x[-virtual - 1 :]]
    if ghosts[0].numel() == x.shape[1]:
        raise Unsupported("norm.virtual must be 2 or more where a unit has one value per example: got 1.")
    parts, means, variances = zip(*map(by_batch, ghosts), strict=True)
    statistics = torch.stack([*means, *variances]).view(2, len(ghosts), -1)  # [2, ghost batches, C]
    whole, rest = len(ghosts[0]), len(ghosts[-1])  # all but the last are of the same size
    mean, var = (statistics[:, :-1].sum(1) * whole + statistics[:, -1] * rest) / n
    return torch.cat(parts), mean, var


def require_virtual(virtual: int) -> int:
    if virtual < 1:
        raise ValueError(f"norm.virtual must be 1 or more: got {virtual}.")
    return virtual
