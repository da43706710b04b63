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
    the last ghost batch is smaller; a rest of one value per feature joins the one before it.

    The running averages advance once per step, by the mean over the ghost batches of their statistics, each weighed by
    its examples: they look back as far as batch norm's. That is not the paper's rule. With `update_per="ghost_batch"`
    they advance once for each ghost batch, in order, as in algorithm 1 and where ghost batches pass through batch norm
    one after the other, as in its authors' code: they look back G times less far, for G ghost batches in a step, and
    the last ones weigh most. (The paper averages standard deviations; here, as in batch norm, it is the variance.)

    No paper gives a recipe for recurrent cells: there it is batch norm's, with the batch cut into ghost batches.

    Args:
        virtual: examples in a ghost batch, 1 or more (one alone needs more than one position).
        update_per: "step" or "ghost_batch": how often the running averages advance.
        options: as RunningStatistics.

    Shape: [N, C] or [N, C, H, W], unchanged.
    Raises: Unsupported in training with a batch smaller than `virtual`, or one value per feature in a ghost batch.
    Source: Hoffer, Hubara & Soudry 2017, arXiv:1705.08741, section 4 (algorithm 1).
    """

    called = "Ghost batch norm"
    by_itself = True

    def __init__(self, features: int, *, virtual: int, update_per: str = "step", **options: Any) -> None:
        super().__init__(features, **options)
        self.virtual, self.update_per = virtual, update_per

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ghosts = self.ghosts(x)
        parts, means, variances = zip(*map(super().by_batch, ghosts), strict=True)
        statistics = torch.stack([*means, *variances]).view(2, len(ghosts), -1)  # [2, ghost batches, C]
        if self.update_per == "step":
            whole, rest = len(ghosts[0]), len(ghosts[-1])  # all but the last are of the same size
            statistics = ((statistics[:, :-1].sum(1) * whole + statistics[:, -1] * rest) / len(x)).unsqueeze(1)
        return torch.cat(parts), statistics[0], statistics[1]

    def update(self, mean: Tensor, var: Tensor | None, t: int | None = None) -> None:
        """Feed means and variances [updates, C], one after the other."""
        assert var is not None
        for one in zip(mean, var, strict=True):
            super().update(*one, t)

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
