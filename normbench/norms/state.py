"""Running a network without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Inside, `model` is in evaluation mode, has no gradients, and may be run at will.

    Afterwards buffers, modes, gradients and random numbers are as they were, also after an exception. What is done to
    parameters stays.
    """
    restore = keep_buffers(model)
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    device = next(chain(model.parameters(), model.buffers(), [torch.empty(0)])).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        try:
            for parameter, _ in gradients:
                parameter.grad = None
            model.eval()
            yield
        finally:
            restore()
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, mode in modes:
                module.training = mode


def keep_buffers(model: nn.Module) -> Callable[[], None]:
    """What makes the buffers of `model` again what they are now, as often as it is called."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]

    def restore() -> None:
        for buffer, value in kept:
            buffer.copy_(value)

    return restore


def use_batch_statistics(model: nn.Module) -> None:
    """Let the layers that work with the batch use that of the images passed through, and not their averages."""
    for module in model.modules():
        if uses_batch(module):
            module.training = True


def uses_batch(module: nn.Module) -> bool:
    """Does this module, in training mode, let the examples of a batch influence one another?

    Ours say so (`uses_batch = True`); torch's batch norms and most others that do keep running statistics.
    """
    return bool(getattr(module, "uses_batch", getattr(module, "running_mean", None) is not None))
