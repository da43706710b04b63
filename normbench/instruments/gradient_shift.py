"""How far the update of the layers before it moves the gradient of a layer: covariate shift as training feels it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.lookahead import next_weights, stand_ins, weight_gradients
from normbench.instruments.probe import Probe
from normbench.norms import blocks
from normbench.training.loop import Step


class GradientShift(Instrument):
    """For each block i but the first, which is 0 by definition and has no row: a row for each of its weights w, with

        distance   |G - G'|                  G  = dL/dw(theta_1, ..., theta_k)
        relative   |G - G'| / |G|            G' = dL/dw(theta_1', ..., theta_(i-1)', theta_i, ..., theta_k)
        cosine     <G, G'> / (|G| |G'|)
        norm       |G|

    theta' is theta after the run's own next step, momentum and the like included; all parameters of the earlier blocks
    (biases, gamma, beta and g, too) have taken it, this block and those after it have not. The order is that of
    definition. L is the next step's loss: the same mini-batch, dropout masks and batch statistics in both. w is the
    effective weight, not g and v. Norms are Frobenius norms.

    It takes a step and a pass per block. There are no rows after the last step.

    Source: Santurkar et al. 2018, arXiv:1805.11604, definition 2.1.
    """

    name = "gradient_shift"
    columns: Sequence[str] = ("distance", "relative", "cosine", "norm")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        if step.batch is None:
            return
        update = self.setting.update
        now = weight_gradients(model, blocks(model), update, step.batch)
        with next_weights(model, self.setting.optimizer, update, step.batch, step.index):
            ahead = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        found: dict[tuple[str, str], Tensor] = {}
        with stand_ins(model):
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
