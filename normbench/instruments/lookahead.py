"""The next training step without taking it: the weights it leads to, and its gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.nn.utils import parametrize

from normbench.instruments.parameters import weights
from normbench.noise import next_draw
from normbench.norms import Recorded, preserve_state
from normbench.training.loop import Batch, Update

WeightKey = tuple[str, str]  # layer, weight


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


@contextmanager
def scratch_parameters(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the parameters hold copies of their values, which may be changed at will. The values are never written.

    It takes 0.1 ms for the default MLP, where a deep copy of it and its Adam takes 4 and a training step 2, measured.
    """
    parameters: list[Tensor] = list(model.parameters())
    values = [parameter.data for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.data = parameter.data.clone()
        yield parameters
    finally:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value


@contextmanager
def lookahead_step(
    model: nn.Module, optimizer: optim.Optimizer, update: Update, batch: Batch, index: int
) -> Iterator[None]:
    """Inside, `model` is as the run's own next update will leave it, to the bit; it is in evaluation mode.

    The optimizer's state, the learning rate's schedule, clipping, accumulation and dropout masks all play their part.
    Afterwards everything is as it was, the optimizer's state included.
    """
    state, groups = optimizer.state, optimizer.param_groups
    with scratch_parameters(model), in_training(model):
        try:
            optimizer.param_groups = [dict(group) for group in groups]
            optimizer.state = defaultdict(dict, {key: _copied(values) for key, values in state.items()})
            update.backward(model, batch)
            update.apply(model, optimizer, index)
            model.eval()
            with torch.no_grad():
                yield
        finally:
            optimizer.state, optimizer.param_groups = state, groups


def _copied(values: dict) -> dict:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()}


def gradient(model: nn.Module, update: Update, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Loss of the next step on `batch`, and its gradient with respect to each parameter (0 to one that is frozen)."""
    with in_training(model):
        loss = update.backward(model, batch)
        return loss, [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]


def weight_gradients(
    model: nn.Module, layers: Iterable[tuple[str, Recorded]], update: Update, batch: Batch
) -> dict[WeightKey, Tensor]:
    """The gradient of the next step's loss on `batch` with respect to the effective weights of these blocks.

    With weight normalisation that is dL/dw, not dL/dg and dL/dv. Weights that are frozen are left out.
    """
    found: dict[WeightKey, Tensor] = {}
    places = [((name, weight.name), weight) for name, block in layers for weight in weights(block)]
    n = update.accumulate
    with in_training(model):
        for images, labels in zip(*(part.chunk(n) for part in batch), strict=True):
            next_draw(model)
            with parametrize.cached():  # a weight is computed once, so that the network works with the tensor read here
                read = {key: weight.effective() for key, weight in places}
                read = {key: w for key, w in read.items() if w.requires_grad}
                if not read:
                    return {}
                loss = F.cross_entropy(model(images), labels) / n
                parts = torch.autograd.grad(loss, list(read.values()), allow_unused=True, materialize_grads=True)
            for key, part in zip(read, parts, strict=True):
                found[key] = found[key] + part if key in found else part
    return found
