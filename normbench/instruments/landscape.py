"""The loss along the gradient: how far a step may go before the gradient no longer tells the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.lookahead import gradient, stand_ins
from normbench.instruments.probe import Probe
from normbench.training.loop import Batch, Step

ABSOLUTE = np.linspace(0.05, 0.4, 8).tolist()  # as Santurkar et al.
RELATIVE = np.geomspace(1 / 4, 4, 8).tolist()  # times the run's own learning rate, whatever its size


class Landscape(Instrument):
    """Of the whole network, along its gradient g = dL/dtheta, over 8 steps eta:

        loss, norm                  L(theta), |g|
        loss_min, loss_max          of L(theta - eta g)
        change_min, change_max      of |g(theta - eta g) - g|: "gradient predictiveness"
        smoothness                  max |g(theta - eta g) - g| / |eta g|: "effective beta-smoothness"
        lr, lr_smoothness           the run's learning rate, and lr x smoothness: without a dimension, while smoothness
                                    alone is 1/c^2 of what it was if scale-invariant weights are c times as large

    One row for each `kind` of steps: "absolute", from 0.05 to 0.4 (as published), and "relative", from 1/4 to 4 times
    the run's lr, a geometric series. theta is all parameters, as they are trained (g and v, not w). L is the next
    step's loss: the same mini-batch, dropout masks and batch statistics everywhere.

    It takes 17 passes. There are no rows after the last step.

    Source: Santurkar et al. 2018, arXiv:1805.11604, section 3.1 and figure 4.
    """

    name = "landscape"
    columns: Sequence[str] = ("kind", "lr", "loss", "norm", "loss_min", "loss_max", "change_min", "change_max",
                              "smoothness", "lr_smoothness")  # fmt: skip

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        if step.batch is None:
            return
        lr = self.setting.update.rate(self.setting.optimizer.param_groups[0], step.index)
        steps = {"absolute": ABSOLUTE, "relative": [factor * lr for factor in RELATIVE]}
        here, losses, changes = self._along(model, step.batch, [eta for part in steps.values() for eta in part])
        loss, norm = here
        for i, (kind, etas) in enumerate(steps.items()):
            part = slice(8 * i, 8 * i + 8)
            # numpy's max, unlike Python's, is NaN if a value is.
            with np.errstate(all="ignore"):
                smoothness = float(np.max(changes[part] / (np.array(etas) * norm)))
            yield {"layer": "", "tensor": "", "kind": kind, "lr": lr, "loss": loss, "norm": norm,
                   "loss_min": float(losses[part].min()), "loss_max": float(losses[part].max()),
                   "change_min": float(changes[part].min()), "change_max": float(changes[part].max()),
                   "smoothness": smoothness, "lr_smoothness": lr * smoothness}  # fmt: skip

    def _along(
        self, model: nn.Module, batch: Batch, etas: Sequence[float]
    ) -> tuple[list[float], np.ndarray, np.ndarray]:
        """Loss and |g| here; loss and change of the gradient at each eta."""
        update = self.setting.update
        loss, g = gradient(model, update, batch)
        losses, changes = [loss], [norm_of(g)]
        with stand_ins(model) as parameters, torch.no_grad():
            start = [parameter.clone() for parameter in parameters]
            for eta in etas:
                torch._foreach_copy_(parameters, start)
                torch._foreach_add_(parameters, g, alpha=-eta)
                loss, there = gradient(model, update, batch)
                losses.append(loss)
                changes.append(norm_of(torch._foreach_sub(there, g)))
        found = torch.stack([*losses, *changes]).double().cpu().numpy()  # waits for the device once
        n = len(losses)
        return [float(found[0]), float(found[n])], found[1:n], found[n + 1 :]


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all of them as one vector."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
