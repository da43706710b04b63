"""Which weights have a scale that makes no difference, found out by trying."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from normbench.instruments.lookahead import WeightKey, in_training, stand_ins
from normbench.instruments.weights import Weight, weights
from normbench.noise import set_draw
from normbench.norms import Recorded, blocks, record_activations

# The change that scaling may make, as a share of what other weights make. Measured over all schemes in four models: at
# most 0.07 where the formula says 0 (eps, in ghost batches of two), at least 0.16 where the scale matters (by a bias).
SMALL = 0.1


def scale_invariance(model: nn.Module, images: Tensor) -> dict[WeightKey, str]:
    """(layer, weight) -> "row", "matrix" or "": what may be scaled without a change of the block's pre-activation.

        "row"      each row by itself (batch norm; v of weight normalisation)
        "matrix"   only all rows together (layer norm)
        ""         neither (no norm, mean-only batch norm)

    The rows of the trained weight (v where there is one) are multiplied by 8 and 2 in turn, or all by 8, and the change
    of `normalized` (`linear` without a norm) is compared with the change that other weights of the same size make.
    Weights, biases, gamma and the like are drawn anew for it: a bias that is still 0 would hide that it is not scaled
    with the weight. What the blocks get is what they get from `images` in training.
    """
    inputs: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def recorder(layer: str) -> Callable[..., None]:
        return lambda block, args, kwargs: inputs.update({layer: (args, kwargs)})

    layers = [(name, block) for name, block in blocks(model) if weights(block)]
    hooks = [block.register_forward_pre_hook(recorder(name), with_kwargs=True) for name, block in layers]
    try:
        with in_training(model), torch.no_grad():
            set_draw(model, -1)
            model(images)
            with stand_ins(model):
                return {(name, weight.name): _of(block, weight, partial(_shown, block, *inputs[name]))
                        for name, block in layers if name in inputs for weight in weights(block)}  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()


def scale(weight: Weight, kind: str) -> Tensor:
    """The norm of what is scale-invariant: the median row's ("row") or that of the whole ("matrix"), w's or v's."""
    w = weight.trained.detach().flatten(1)
    if kind == "matrix":
        return torch.linalg.vector_norm(w)
    rows = torch.linalg.vector_norm(w, dim=1).sort().values
    return (rows[(len(rows) - 1) // 2] + rows[len(rows) // 2]) / 2


def _of(block: Recorded, weight: Weight, shown: Callable[[], Tensor]) -> str:
    w = weight.trained
    generator = torch.Generator(w.device).manual_seed(0)
    matrices = {id(weight.trained) for weight in weights(block)}
    for parameter in block.parameters():
        if id(parameter) not in matrices:
            parameter.uniform_(0.5, 1.5, generator=generator)
    w.normal_(std=w[0].numel() ** -0.5, generator=generator)
    drawn, before = w.clone(), shown()
    w.normal_(std=w[0].numel() ** -0.5, generator=generator)
    other = (shown() - before).abs().mean()
    in_turn = 2 + 6 * (torch.arange(1, len(w) + 1, device=w.device) % 2)  # 8, 2, 8, ...
    for kind, factor in (("row", in_turn), ("matrix", torch.full_like(in_turn, 8))):
        w.copy_(drawn * factor.view(-1, *[1] * (w.dim() - 1)))
        if (shown() - before).abs().mean() < SMALL * other:
            return kind
    return ""


def _shown(block: Recorded, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What the block makes of these inputs before its activation, at all time steps."""
    seen: dict[str, list[Tensor]] = {"linear": [], "normalized": []}
    with record_activations([("", block)], lambda *_: lambda kind, value: seen.setdefault(kind, []).append(value)):
        block(*args, **kwargs)
    return torch.stack(seen["normalized"] or seen["linear"] or [torch.zeros(())])  # a block may show neither
