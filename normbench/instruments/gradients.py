"""How strong the training signal is in each layer, and how much an update changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.utils import parametrize

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.lookahead import WeightKey, in_training, lookahead_step
from normbench.instruments.parameters import Weight, weights
from normbench.instruments.probe import Probe
from normbench.noise import key_of, set_draw
from normbench.norms import Block, Recorded, blocks, record_activations
from normbench.norms.describe import invariances
from normbench.training.loop import Batch, Examples, Step

PRODUCTS = ("input.linear", "hidden.linear")  # of a recurrent cell: W_x x and W_h h, whose sum is its `linear`


class Gradients(Instrument):
    """Of each weight w of each block, and of `linear`:

        gradient       |dL/dw| or |dL/dz|, the Frobenius norm: z over images, units, positions and time steps
        update_ratio   |w_(t+1) - w_t| / |w_t|, of the run's own next update; empty after the last
        invariant      "row", "matrix" or empty: what may be scaled without an effect, see `scale_invariance`
        effective_lr   lr / s^2 for SGD, lr / ((1 - m) s^2) with momentum m, lr / s for Adam, AdamW and RMSprop,
                       where s is the norm of what is scale-invariant: the median row of w, or the whole of w; of v
                       where w is made of g and v. Empty where the scale of w matters

    w is the effective weight, not g and v. L is the mean cross-entropy of a batch of the run's own size, the first
    validation images (training images where these are too few), in training mode: with batch statistics, and with
    dropout and noise that are the same at each snapshot.

    A recurrent cell has two weights, and two products in the place of `linear`: "input.linear" is W_x x, and
    "hidden.linear" is W_h h, as both may be normalised by themselves. Without a norm their gradients are the same.

    Source: van Laarhoven 2017, arXiv:1706.05350 (effective lr).
    """

    name = "gradients"
    columns: Sequence[str] = ("gradient", "update_ratio", "invariant", "effective_lr")

    def __init__(self) -> None:
        self._batch: Batch | None = None

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        layers = {name: (block, weights(block)) for name, block in blocks(model)}
        found = {(name, w.name): w for name, (_, of_block) in layers.items() for w in of_block}
        if not found:
            return
        if self._batch is None:
            enough = len(self.setting.validation) >= self.setting.batch_size
            examples = self.setting.validation if enough else self.setting.train
            self._batch = fixed_batch(model, examples, self.setting.batch_size)
        invariant = {key: scale_invariance(layers[key[0]][0], weight) for key, weight in found.items()}
        norms, now = gradient_norms(model, found, self._batch)
        measured = {
            "gradient": norms,
            "update_ratio": self._update_ratios(step, model, found, now),
            "effective_lr": {
                key: self._effective_lr(found[key], kind, step.index) for key, kind in invariant.items() if kind
            },
        }
        # One wait for the device.
        numbers = iter(torch.stack([n.double() for part in measured.values() for n in part.values()]).tolist())
        values = {column: {key: next(numbers) for key in part} for column, part in measured.items()}
        order = list(layers)
        for key in sorted(values["gradient"], key=lambda key: order.index(key[0])):
            row: Row = {"layer": key[0], "tensor": key[1], "invariant": invariant.get(key, "")}
            yield row | {column: part.get(key) for column, part in values.items()}

    def _update_ratios(
        self, step: Step, model: nn.Module, found: Mapping[WeightKey, Weight], now: list[Tensor]
    ) -> dict[WeightKey, Tensor]:
        if step.batch is None:
            return {}
        with lookahead_step(model, self.setting.optimizer, self.setting.update, step.batch, step.index):
            moved = torch._foreach_sub([weight.effective() for weight in found.values()], now)
            ratios = torch._foreach_div(torch._foreach_norm(moved), torch._foreach_norm(now))
        return dict(zip(found, ratios, strict=True))

    def _effective_lr(self, weight: Weight, kind: str, index: int) -> Tensor:
        optimizer = self.setting.optimizer
        group = next(g for g in optimizer.param_groups if any(p is weight.trained for p in g["params"]))
        rate = self.setting.update.rate(group, index)
        if not isinstance(optimizer, optim.SGD):
            return rate / scale(weight, kind)
        return rate / (1 - group["momentum"]) / scale(weight, kind).square()


def scale_invariance(block: Recorded, weight: Weight) -> str:
    """What may be scaled without a change of the block's pre-activation, as norms and re-parametrisations declare it:

    "row"      each row of w (of v where there is one) by itself: batch norm, weight normalisation
    "matrix"   only all rows at once: layer norm
    ""         neither: no norm, mean-only batch norm, a norm behind the activation
    """
    behind = isinstance(block, Block) and block.placement == "after" and block.activation is not None
    norm = None if behind else getattr(block, f"{weight.path.replace('.', '_')}norm", None)
    found = invariances(weight.module, norm)
    return "row" if "vector scaled" in found else "matrix" if "matrix scaled" in found else ""


def scale(weight: Weight, kind: str) -> Tensor:
    """The norm of what is scale-invariant: the median row's ("row") or that of the whole ("matrix"), w's or v's."""
    w = weight.trained.detach().flatten(1)
    if kind == "matrix":
        return torch.linalg.vector_norm(w)
    rows = torch.linalg.vector_norm(w, dim=1).sort().values
    return (rows[(len(rows) - 1) // 2] + rows[len(rows) // 2]) / 2


def fixed_batch(model: nn.Module, examples: Examples, count: int) -> Batch:
    """The first `count` examples, augmented (if that is done to them) as they will be at any other time."""
    device = next(model.parameters()).device
    return examples.batch(torch.arange(count, device=device), key_of(0, 0, "augment", device))


def gradient_norms(
    model: nn.Module, found: Mapping[WeightKey, Weight], batch: Batch
) -> tuple[dict[tuple[str, str], Tensor], list[Tensor]]:
    """|dL/dw| and |dL/dz| of each block, in training mode; and all w. Of frozen weights there is no gradient."""
    with in_training(model), parametrize.cached():  # a weight is computed once: the network uses what is read here
        set_draw(model, -1)  # of no training step: the same noise each time
        read = {key: weight.effective() for key, weight in found.items()}
        inputs = {key: [get_gradient_edge(w)] for key, w in read.items() if w.requires_grad}
        with record_activations(blocks(model), lambda layer, block: _collector(layer, block.recurrent, inputs)):
            loss = F.cross_entropy(model(batch[0]), batch[1])
        flat = [place for part in inputs.values() for place in part]
        gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True))
        used = {key: [g for g in (next(gradients) for _ in part) if g is not None] for key, part in inputs.items()}
        norms = {key: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(part)))
                 for key, part in used.items() if part}  # fmt: skip
        for layer, _ in blocks(model):
            if (layer, "linear") in norms:  # the loss knows the sum itself
                for part in PRODUCTS:
                    norms.pop((layer, part), None)
        return norms, [w.detach() for w in read.values()]


def _collector(
    layer: str, recurrent: bool, inputs: dict[tuple[str, str], list[GradientEdge]]
) -> Callable[[str, Tensor], None]:
    def collect(kind: str, value: Tensor) -> None:
        if kind != "linear" or value.grad_fn is None:
            return
        inputs.setdefault((layer, "linear"), []).append(get_gradient_edge(value))
        if recurrent:
            # What our cells show is a sum made for the observer, of which the loss knows the two summands alone.
            for product, (node, place) in zip(PRODUCTS, value.grad_fn.next_functions, strict=False):
                if node is not None:
                    inputs.setdefault((layer, product), []).append(GradientEdge(node, place))

    return collect
