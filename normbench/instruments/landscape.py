"""What the next step meets: how far gradients shift, and how smooth the loss is along the gradient.

Source: Santurkar et al. 2018, arXiv:1805.11604.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.lookahead import gradient, lookahead_step, scratch_parameters, weight_gradients
from normbench.instruments.probe import Key, Probe
from normbench.norms import blocks
from normbench.training.loop import Batch, Step

ABSOLUTE = np.linspace(0.05, 0.4, 8).tolist()  # as Santurkar et al.
RELATIVE = np.geomspace(1 / 4, 4, 8).tolist()  # times the run's own learning rate, whatever its size


class GradientShift(Instrument):
    """How far the update of the layers before it moves the gradient of a layer: covariate shift as training feels it.

    For each block i but the first, which is 0 by definition and has no row: a row for each of its weights w, with

        distance   |G - G'|                  G  = dL/dw(theta_1, ..., theta_k)
        relative   |G - G'| / |G|            G' = dL/dw(theta_1', ..., theta_(i-1)', theta_i, ..., theta_k)
        cosine     <G, G'> / (|G| |G'|)
        norm       |G|

    theta' is theta after the run's own next step, momentum and the like included; all parameters of the earlier blocks
    (biases, gamma, beta and g, too) have taken it, this block and those after it have not. The order is that of
    definition. L is the next step's loss: the same mini-batch, dropout masks and batch statistics in both. w is the
    effective weight, not g and v. Norms are Frobenius norms.

    It takes a step and a pass per block. There are no rows after the last step.

    Source: Santurkar et al. 2018, definition 2.1.
    """

    name = "gradient_shift"
    columns: Sequence[str] = ("distance", "relative", "cosine", "norm")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        if step.batch is None:
            return
        update = self.setting.update
        now = weight_gradients(model, blocks(model), update, step.batch)
        with lookahead_step(model, self.setting.optimizer, update, step.batch, step.index):
            ahead = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        found: dict[Key, Tensor] = {}
        with scratch_parameters(model):
            waiting = list(model.named_parameters())  # those that have not taken the step
            for layer, block in blocks(model):
                first = next((i for i, (name, _) in enumerate(waiting) if name.startswith(f"{layer}.")), 0)
                for name, parameter in waiting[:first]:
                    parameter.data.copy_(ahead[name])
                waiting = waiting[first:]
                if len(waiting) < len(ahead):  # there is something before this block
                    after = weight_gradients(model, [(layer, block)], update, step.batch)
                    found |= {key: compared(now[key], gradient) for key, gradient in after.items()}
        if found:
            for (layer, weight), numbers in zip(found, torch.stack(list(found.values())).tolist(), strict=True):
                yield {"layer": layer, "tensor": weight, **dict(zip(self.columns, numbers, strict=True))}


def compared(g: Tensor, other: Tensor) -> Tensor:
    """Distance, relative distance, cosine and norm [4], in float64."""
    g, other = g.double().flatten(), other.double().flatten()
    norm, distance = torch.linalg.vector_norm(g), torch.linalg.vector_norm(g - other)
    cosine = (g @ other) / (norm * torch.linalg.vector_norm(other))
    return torch.stack((distance, distance / norm, cosine, norm))


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

    Source: Santurkar et al. 2018, section 3.1 and figure 4.
    """

    name = "landscape"
    columns: Sequence[str] = ("kind", "lr", "loss", "norm", "loss_min", "loss_max", "change_min", "change_max",
                              "smoothness", "lr_smoothness")  # fmt: skip

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        if step.batch is None:
            return
        lr = self.setting.update.rate(self.setting.optimizer.param_groups[0], step.index)
        kinds = {"absolute": ABSOLUTE, "relative": [factor * lr for factor in RELATIVE]}
        losses, norms = self._along(model, step.batch, [eta for etas in kinds.values() for eta in etas])
        for i, (kind, etas) in enumerate(kinds.items()):
            part = slice(8 * i + 1, 8 * i + 9)
            # numpy's max, unlike Python's, is NaN if a value is.
            with np.errstate(all="ignore"):
                smoothness = float(np.max(norms[part] / (np.array(etas) * norms[0])))
            yield {"layer": "", "tensor": "", "kind": kind, "lr": lr, "loss": float(losses[0]), "norm": float(norms[0]),
                   "loss_min": float(losses[part].min()), "loss_max": float(losses[part].max()),
                   "change_min": float(norms[part].min()), "change_max": float(norms[part].max()),
                   "smoothness": smoothness, "lr_smoothness": lr * smoothness}  # fmt: skip

    def _along(self, model: nn.Module, batch: Batch, etas: Sequence[float]) -> np.ndarray:
        """Here and at each eta: the loss, and |g| here, the norm of the gradient's change elsewhere [2, 1 + etas]."""
        update = self.setting.update
        loss, g = gradient(model, update, batch)
        losses, norms = [loss], [norm_of(g)]
        with scratch_parameters(model) as parameters, torch.no_grad():
            start = [parameter.clone() for parameter in parameters]
            for eta in etas:
                torch._foreach_copy_(parameters, start)
                torch._foreach_add_(parameters, g, alpha=-eta)
                loss, there = gradient(model, update, batch)
                losses.append(loss)
                norms.append(norm_of(torch._foreach_sub(there, g)))
        # One wait for the device.
        return torch.stack([torch.stack(losses), torch.stack(norms)]).double().cpu().numpy()


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all of them as one vector."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
