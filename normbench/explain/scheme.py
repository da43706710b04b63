"""Which steps explain which scheme, and where in the network to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm

from normbench.errors import UserError
from normbench.explain import batch, layer, mean_only, other, selu, weight
from normbench.explain.place import Place, look, norm_of
from normbench.explain.steps import Step
from normbench.norms import (
    BatchNorm,
    Block,
    LayerNorm,
    MeanOnlyBatchNorm,
    Recorded,
    RecurrentBatchNorm,
    RecurrentLayerNorm,
    RecurrentMeanOnlyBatchNorm,
    batch_statistics,
    blocks,
)

NORMS = {
    BatchNorm: batch.steps,
    RecurrentBatchNorm: batch.steps,
    LayerNorm: layer.steps,
    RecurrentLayerNorm: layer.steps,
    MeanOnlyBatchNorm: mean_only.steps,
    RecurrentMeanOnlyBatchNorm: mean_only.steps,
}


@dataclass(frozen=True)
class Subject:
    """What is explained: a trained network on the CPU, and the images that it is explained with."""

    model: nn.Module
    scheme: str
    title: str
    trained: str  # how, in words
    images: Tensor  # a mini-batch
    labels: Tensor
    many: Tensor  # images, for what a mini-batch can't show


def explanation(subject: Subject, name: str | None, unit: int) -> tuple[list[Step], dict[str, Any]]:
    """The steps, and what they are about. The network stays as it is. Raises UserError."""
    with batch_statistics(subject.model):
        place = _place(subject, name, unit)
        norm, found = place.norm, []
        if weight_normalized(place.block):
            found += weight.steps(place)
        if norm is not None:
            found += NORMS.get(type(norm), other.steps)(place)
        elif isinstance(getattr(place.block, "activation", None), nn.SELU):
            found += selu.steps(place)
        elif not found:
            found += other.steps(place)
    units = place.seen.x.shape[1]
    time = f", time step {place.t + 1} of {place.block.steps}" if place.t is not None else ""
    gate = f" ({place.gate} gate)" if place.gate else ""
    where = (
        f"Layer {place.layer}, unit {unit} (of 0 to {units - 1}){gate}{time}; "
        f"a mini-batch of {len(place.images)}: the first images of the training set. The network: {subject.trained}."
    )
    facts = {"network": subject.title, "where": where, "norm": subject.scheme, "layer": place.layer, "unit": unit,
             "batch_size": len(place.images), "time_step": place.t}  # fmt: skip
    return found, facts


def weight_normalized(block: Recorded) -> bool:
    linear = getattr(block, "linear", None) or getattr(block, "input", None)
    if linear is None or not parametrize.is_parametrized(linear, "weight"):
        return False
    return isinstance(linear.parametrizations.weight[0], _WeightNorm)


def _place(subject: Subject, name: str | None, unit: int) -> Place:
    found = {key: block for key, block in blocks(subject.model) if isinstance(block, Block) or block.recurrent}
    if name is None:
        name = next((key for key, block in found.items() if norm_of(block) is not None), next(iter(found)))
    if name not in found:
        raise UserError(f"there is no layer {name}. Layers of this network: {', '.join(found)}.")
    block = found[name]
    t = block.steps // 2 if block.recurrent else None
    units = look(subject.model, block, subject.images[:2], t).x.shape[1]
    if not 0 <= unit < units:
        raise UserError(f"there is no unit {unit} in layer {name}: it has {units}, from 0 to {units - 1}.")
    return Place(subject.model, name, block, unit, t, subject.images, subject.labels, subject.many)
