"""Running a network without leaving a trace, and with the statistics of the images that go through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

AXES = ("examples", "features", "height", "width")
OVER = {
    _BatchNorm: ("examples", "height", "width"),
    _InstanceNorm: ("height", "width"),
    nn.GroupNorm: ("features", "height", "width"),
    nn.LayerNorm: ("features",),
}  # fmt: skip


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Inside, `model` is in evaluation mode, has no gradients, and may be run at will.

    Afterwards buffers, modes, gradients and random numbers are as they were, also after an exception. What is done to
    parameters stays.
    """
    restore = keep_buffers(model)
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    modes: list[tuple[Any, dict[str, bool]]] = [
        (module, {name: getattr(module, name) for name in ("training", "noisy", "own_share") if hasattr(module, name)})
        for module in model.modules()
    ]
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
                vars(module).update(mode)


@contextmanager
def batch_statistics(model: nn.Module, noise: bool = True) -> Iterator[None]:
    """As `preserve_state`, with `use_batch_statistics`."""
    with preserve_state(model):
        use_batch_statistics(model, noise)
        yield


def use_batch_statistics(model: nn.Module, noise: bool = True) -> None:
    """Let the layers that work with the batch use that of the images passed through, and not their averages.

    Args:
        noise: False also turns off the noise that a norm adds to its output in training (`noisy`).
    """
    for module in model.modules():
        if uses_batch(module):
            module.training = True
        if not noise and hasattr(module, "noisy"):
            module.noisy = False  # type: ignore[assignment]


def keep_buffers(model: nn.Module) -> Callable[[], None]:
    """What makes the buffers of `model` again what they are now, as often as it is called."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]

    def restore() -> None:
        for buffer, value in kept:
            buffer.copy_(value)

    return restore


def uses_batch(module: nn.Module) -> bool:
    """Does this module, in training mode, let the examples of a batch influence one another?

    Of one whose axes are not known: does it keep running statistics?
    """
    over = axes_of(module)
    return "examples" in over if over is not None else getattr(module, "running_mean", None) is not None


def axes_of(norm: nn.Module) -> tuple[str, ...] | None:
    """The axes of AXES that a norm works over: what it declares as `over`, or what torch's norms are known for."""
    known = next((axes for kind, axes in OVER.items() if isinstance(norm, kind)), None)
    declared: tuple[str, ...] | None = getattr(norm, "over", known)
    return declared
