"""Ghost batch normalization: batch normalization over parts of the batch, as if it were smaller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from normbench.errors import Unsupported
from normbench.norms.batch import RunningStatistics


class GhostBatchNorm(RunningStatistics):
    """Batch normalization of each `virtual` consecutive examples by themselves: the "ghost batches" of the batch.

    It separates the batch that is normalised over from the batch of the update. If `virtual` does not divide the batch,
    the last ghost batch is smaller; a rest of one value per feature joins the one before it. The averages advance once
    per step, by the mean over the ghost batches of their statistics, each weighed by its examples.

    No paper gives a recipe for recurrent cells: there it is batch norm's, with the batch cut into ghost batches.

    Args:
        virtual: examples in a ghost batch, 1 or more (one alone needs more than one position).
        options: as RunningStatistics.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with a batch smaller than `virtual`, or one value per feature in a ghost batch.
    Source: Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, section 4 (algorithm 1).
    """

    called = "Ghost batch norm"

    def __init__(self, features: int, *, virtual: int, **options: Any) -> None:
        super().__init__(features, **options)
        self.virtual = virtual

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ghosts = self.ghosts(x)
        parts, means, variances = zip(*map(super().by_batch, ghosts), strict=True)
        statistics = torch.stack([*means, *variances]).view(2, len(ghosts), -1)  # [2, ghost batches, C]
        whole, rest = len(ghosts[0]), len(ghosts[-1])  # all but the last are of the same size
        mean, var = (statistics[:, :-1].sum(1) * whole + statistics[:, -1] * rest) / len(x)
        return torch.cat(parts), mean, var

    def ghosts(self, x: Tensor) -> list[Tensor]:
        """The ghost batches of `x`."""
        n, virtual = len(x), self.virtual
        # Without gradients it is no training step: instruments may look at fewer images, which then are one ghost batch
        if virtual > n and torch.is_grad_enabled():
            raise Unsupported(
                f"norm.virtual must be at most the batch of {n}: got {virtual}. Use norm.virtual={n} or less."
            )
        ghosts = list(x.split(virtual))
        if len(ghosts) > 1 and ghosts[-1].numel() == x.shape[1]:
            ghosts[-2:] = [x[-virtual - 1 :]]
        if ghosts[0].numel() == x.shape[1]:
            raise Unsupported("norm.virtual must be 2 or more where a unit has one value per example: got 1.")
        return ghosts
