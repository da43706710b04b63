"""How strong the training signal is in each layer, and how much an update changes it; the next step in advance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.utils import parametrize

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.parameters import Weight, weights_of
from normbench.instruments.probe import Key, Probe
from normbench.noise import key_of, next_draw, set_draw
from normbench.norms import Block, Recorded, blocks, preserve_state, record_activations
from normbench.norms.describe import invariances
from normbench.training.loop import Batch, Examples, Step, Update

PRODUCTS = ("input.linear", "hidden.linear")  # of a recurrent cell: W_x x and W_h h, whose sum is its `linear`


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """Inside, a pass is one of training: modules' modes as they are, gradients on, and the next step's noise.

    Afterwards buffers, modes, gradients and random numbers are as they were: passes, each in a block of its own, have
    the same dropout masks.
    """
    modes = [(module, module.training) for module in model.modules()]
    with preserve_state(model), torch.enable_grad():
        for module, mode in modes:
            module.training = mode
        yield


def next_step(model: nn.Module, optimizer: optim.Optimizer, update: Update, batch: Batch, index: int) -> nn.Module:
    """A copy of `model` as the run's own next update will leave it, to the bit; it is in evaluation mode.

    The optimizer's state, the learning rate's schedule, clipping, accumulation and dropout masks all play their part.
    """
    device = batch[0].device
    ahead, its_optimizer = deepcopy((model, optimizer))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        update.backward(ahead, batch)
        update.apply(ahead, its_optimizer, index)
    return ahead.eval()


def gradient(model: nn.Module, update: Update, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Loss of the next step on `batch`, and its gradient with respect to each parameter (0 to one that is frozen).

    In the precision of the weights, whatever `update.amp` says.
    """
    with in_training(model):
        loss = replace(update, amp="none").backward(model, batch)
        return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def weight_gradients(
    model: nn.Module, weights: Mapping[Key, Weight], update: Update, batch: Batch
) -> dict[Key, Tensor]:
    """The gradient of the next step's loss on `batch` with respect to these effective weights.

    With weight normalisation that is dL/dw, not dL/dg and dL/dv. Weights that are frozen are left out.
    """
    found: dict[Key, Tensor] = {}
    with in_training(model):
        for part in zip(*(tensor.chunk(update.accumulate) for tensor in batch), strict=True):
            next_draw(model)
            for key, gradients in gradients_of_one_pass(model, weights, part, update.accumulate).items():
                found[key] = found[key] + gradients[0] if key in found else gradients[0]
    return found


def gradients_of_one_pass(
    model: nn.Module, weights: Mapping[Key, Weight], batch: Batch, parts: int = 1, of_linear: bool = False
) -> dict[Key, list[Tensor]]:
    """The gradient of the mean cross-entropy, divided by `parts`, with respect to each of `weights` that is not frozen.

    Args:
        of_linear: also with respect to `linear` of each block, at each time step: of a recurrent cell, also to
            PRODUCTS. Those that the loss does not depend on are left out.
    """
    with parametrize.cached():  # a weight is computed once: the network uses what is read here
        read = {key: weight.effective() for key, weight in weights.items()}
        edges = defaultdict(list, {key: [get_gradient_edge(w)] for key, w in read.items() if w.requires_grad})

        def observer(layer: str, block: Recorded) -> Callable[[str, Tensor], None]:
            def collect(kind: str, value: Tensor) -> None:
                if kind != "linear" or value.grad_fn is None:
                    return
                edges[layer, kind].append(get_gradient_edge(value))
                # What our cells show is a sum made for the observer, of which the loss knows the two summands alone.
                for product, (node, place) in zip(PRODUCTS, value.grad_fn.next_functions, strict=False):
                    if block.recurrent and node is not None:
                        edges[layer, product].append(GradientEdge(node, place))

            return collect

        with record_activations(blocks(model) if of_linear else (), observer):
            loss = F.cross_entropy(model(batch[0]), batch[1]) / parts
        flat = [edge for part in edges.values() for edge in part]
        gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True) if flat else ())
    found = {key: [g for g in islice(gradients, len(part)) if g is not None] for key, part in edges.items()}
    return {key: part for key, part in found.items() if part}


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The norm of all of them as one vector."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))


class Gradients(Instrument):
    """Of each weight w of each block, and of `linear`:

        gradient       |dL/dw| or |dL/dz|, the Frobenius norm: z over images, units, positions and time steps
        update_ratio   |w_(t+1) - w_t| / |w_t|, of the run's own next update; empty after the last
        invariant      "row", "matrix" or empty: what may be scaled without an effect, see `scale_invariance`
        effective_lr   lr / s^2 for SGD, lr / ((1 - m) s^2) with momentum m, lr / s for Adam, AdamW, RMSprop and Muon,
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
    columns = ("gradient", "update_ratio", "invariant", "effective_lr")

    def __init__(self) -> None:
        self._batch: Batch | None = None

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        layers = dict(blocks(model))
        weights = weights_of(layers.items())
        if not weights:
            return
        if self._batch is None:
            enough = len(self.setting.validation) >= self.setting.batch_size
            examples = self.setting.validation if enough else self.setting.train
            self._batch = fixed_batch(model, examples, self.setting.batch_size)
        with in_training(model):
            set_draw(model, -1)  # of no training step: the same noise each time
            gradients = gradients_of_one_pass(model, weights, self._batch, of_linear=True)
        ratios = self._update_ratios(step, model, weights)
        order = list(layers)
        for key in sorted(gradients, key=lambda key: order.index(key[0])):
            layer, tensor = key
            if tensor in PRODUCTS and (layer, "linear") in gradients:  # the loss knows the sum itself
                continue
            row: Row = {"layer": layer, "tensor": tensor, "gradient": norm_of(gradients[key])}
            kind = scale_invariance(layers[layer], weights[key]) if key in weights else ""
            rate = self._effective_lr(weights[key], kind, step.index) if kind else None
            yield row | {"update_ratio": ratios.get(key), "invariant": kind, "effective_lr": rate}

    def _update_ratios(self, step: Step, model: nn.Module, weights: Mapping[Key, Weight]) -> dict[Key, Tensor]:
        if step.batch is None:
            return {}
        ahead = weights_of(
            blocks(next_step(model, self.setting.optimizer, self.setting.update, step.batch, step.index))
        )
        norm = torch.linalg.vector_norm
        with preserve_state(model):
            pairs = {key: (weight.effective(), ahead[key].effective()) for key, weight in weights.items()}
            return {key: norm(after - now) / norm(now) for key, (now, after) in pairs.items()}

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
