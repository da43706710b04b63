"""What the next step meets: how far gradients shift, and how smooth the loss is along the gradient.

Source: Santurkar et al. 2018, arXiv:1805.11604.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench import seeding
from normbench.instruments.gradients import gradient, in_training, next_step, norm_of, weight_gradients
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.parameters import weights_of
from normbench.instruments.probe import Probe
from normbench.noise import next_draw
from normbench.norms import blocks
from normbench.norms.weight import with_plain_weight_norm
from normbench.training.loop import Batch, Step, Update

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
    columns = ("distance", "relative", "cosine", "norm")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        if step.batch is None:
            return
        update, mixed = self.setting.update, deepcopy(model)  # its parameters take the step one after the other
        ahead = next_step(model, self.setting.optimizer, update, step.batch, step.index)
        now = weight_gradients(model, weights_of(blocks(model)), update, step.batch)
        names = [name for name, _ in model.named_parameters()]
        moved = 0  # parameters, in the order of definition
        for layer, block in blocks(mixed):
            before = next((i for i, name in enumerate(names) if name.startswith(f"{layer}.")), 0)
            for name in names[moved:before]:
                mixed.get_parameter(name).data.copy_(ahead.get_parameter(name))
            moved = max(moved, before)
            if moved:  # there is something before this block
                after = weight_gradients(mixed, weights_of([(layer, block)]), update, step.batch)
                for key, other in after.items():
                    yield {"layer": layer, "tensor": key[1], **compared(now[key], other)}


def compared(g: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Distance, relative distance, cosine and norm, in float64."""
    g, other = g.double().flatten(), other.double().flatten()
    norm, distance = torch.linalg.vector_norm(g), torch.linalg.vector_norm(g - other)
    cosine = (g @ other) / (norm * torch.linalg.vector_norm(other))
    return {"distance": distance, "relative": distance / norm, "cosine": cosine, "norm": norm}


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

    With `lanczos`, a third row, of kind "hessian": what the curvature is here, in all directions.

        eigenvalue, eigenvalue_min  the largest and the smallest eigenvalue of the Hessian d^2 L / d theta^2; gradient
                                    descent with an lr above 2 / eigenvalue is not stable
        eigenvalue_error            an eigenvalue lies this near to the first, at most; the largest is never below it

    It takes 17 passes, and with `lanczos` a pass and so many products with the Hessian, of about two passes each. There
    are no rows after the last step.

    Args:
        lanczos: iterations of Lanczos' method, 0 for none. Of an MLP and a CNN on MNIST 10 gave the largest eigenvalue
            to four digits, and took as long as the rest or twice as long; the smallest needs more.

    Source: Santurkar et al. 2018, section 3.1 and figure 4; Ghorbani et al. 2019, arXiv:1901.10159 (Hessian; there of
    all training images, here of the mini-batch).
    """

    name = "landscape"
    columns = ("kind", "lr", "loss", "norm", "loss_min", "loss_max", "change_min", "change_max",
               "smoothness", "lr_smoothness", "eigenvalue", "eigenvalue_min", "eigenvalue_error")  # fmt: skip

    def __init__(self, *, lanczos: int = 0) -> None:
        if type(lanczos) is not int or lanczos < 0:
            raise ValueError(f"landscape.lanczos must be a whole number, 0 or more: got {lanczos}.")
        self.lanczos = lanczos

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        if step.batch is None:
            return
        update = self.setting.update
        lr = update.rate(self.setting.optimizer.param_groups[0], step.index)
        loss, g = gradient(model, update, step.batch)
        norm, moved = norm_of(g), deepcopy(model)
        for kind, etas in {"absolute": ABSOLUTE, "relative": [factor * lr for factor in RELATIVE]}.items():
            losses, changes = [], []
            for eta in etas:
                for parameter, start, direction in zip(moved.parameters(), model.parameters(), g, strict=True):
                    parameter.data = torch.add(start.data, direction, alpha=-eta)
                there = gradient(moved, update, step.batch)
                losses.append(there[0])
                changes.append(norm_of(torch._foreach_sub(there[1], g)))
            loss_there, change = torch.stack(losses), torch.stack(changes)
            smoothness = (change.double() / (norm.new_tensor(etas, dtype=torch.float64) * norm)).max()
            yield {"layer": "", "tensor": "", "kind": kind, "lr": lr, "loss": loss, "norm": norm,
                   "loss_min": loss_there.min(), "loss_max": loss_there.max(),
                   "change_min": change.min(), "change_max": change.max(),
                   "smoothness": smoothness, "lr_smoothness": lr * smoothness}  # fmt: skip
        if self.lanczos:
            twice = with_plain_weight_norm(model)
            with in_training(twice):
                found = extreme_eigenvalues(*hessian(twice, update, step.batch), self.lanczos)
            names = ("eigenvalue", "eigenvalue_min", "eigenvalue_error")
            yield {"layer": "", "tensor": "", "kind": "hessian", "lr": lr, "loss": loss, "norm": norm,
                   **dict(zip(names, found, strict=True))}  # fmt: skip


def hessian(model: nn.Module, update: Update, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """v -> H v, H being the Hessian of the next step's loss on `batch`, and the parameters as a vector like v.

    By two backward passes, of which the first is calculated once: torch has no forward derivative of batch norm's
    backward pass. To be used inside `in_training`.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = []
    for images, labels in zip(*(tensor.chunk(update.accumulate) for tensor in batch), strict=True):
        next_draw(model)
        losses.append(F.cross_entropy(model(images), labels))
    loss = torch.stack(losses).mean()
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    slope = torch.cat([gradient.flatten() for gradient in first])

    def product(v: Tensor) -> Tensor:
        second = torch.autograd.grad(
            slope @ v, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([gradient.flatten() for gradient in second])

    return product, slope.detach()


def extreme_eigenvalues(
    product: Callable[[Tensor], Tensor], like: Tensor, iterations: int
) -> tuple[float, float, float]:
    """Of a symmetric matrix, given as v -> A v: its largest eigenvalue from below, its smallest from above, and how
    near to the first an eigenvalue lies at most. NaN where a product is not finite.

    Lanczos' method from a random vector, the same each time; each new one is made orthogonal to all before it.
    """
    size = len(like)
    v = torch.randn(size, generator=seeding.generator(0, "lanczos"), dtype=torch.float64).to(like)
    basis = like.new_empty(min(iterations, size), size)
    diagonal, beside = list[float](), list[float]()
    for i in range(len(basis)):
        basis[i] = v / torch.linalg.vector_norm(v)
        v = product(basis[i])
        diagonal.append((v @ basis[i]).item())
        for _ in range(2):
            v = v - basis[: i + 1].T @ (basis[: i + 1] @ v)
        beside.append(torch.linalg.vector_norm(v).item())
        if not math.isfinite(diagonal[-1]) or not math.isfinite(beside[-1]):
            return math.nan, math.nan, math.nan
        if beside[-1] <= torch.finfo(like.dtype).eps * max(map(abs, (*diagonal, *beside))):
            break  # the vectors so far span all that the matrix makes of the first
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    return values[-1], values[0], beside[-1] * abs(vectors[-1, -1])
