"""Looking without touching."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from normbench.norms import Observed, blocks, uses_batch


@contextmanager
def observing(model: nn.Module, statistics: str = "probe") -> Iterator[None]:
    """Inside, `model` may be run at will; afterwards buffers, modes, gradients and random numbers are as they were.

    Dropout and noise are off, as in evaluation (but for the noise of a norm that works with the batch). Layers that
    use the batch work with

    Args:
        statistics: "probe": those of the images passed through, so that a shift shows the effect of the weights alone
            (running averages lag behind: at step 0 they are 0 and 1, and turned a shift of 0.17 standard deviations
            into 13.8, measured); "running": their averages, as in evaluation.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # an instrument may compute gradients of its own
    modes = [(module, module.training) for module in model.modules()]
    device = next(chain(model.parameters(), model.buffers(), [torch.empty(0)])).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        model.eval()
        if statistics == "probe":
            for module in model.modules():
                if uses_batch(module):
                    module.training = True
        try:
            yield
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, mode in modes:
                module.training = mode


def tensors_of(model: nn.Module, probe: Tensor, statistics: str = "probe") -> dict[tuple[str, str], Tensor]:
    """The tensors that the blocks of `model` show for the images `probe`: {(layer, tensor): values [N, C, ...]}.

    A recurrent cell's are stacked over time steps: [N, C, T].
    """
    seen: dict[tuple[str, str], list[Tensor]] = {}
    watched = list(blocks(model))

    def watch(layer: str, block: Observed) -> None:
        block.observer = lambda name, tensor: seen.setdefault((layer, name), []).append(tensor)

    with observing(model, statistics):
        try:
            for layer, block in watched:
                watch(layer, block)
            model(probe)
        finally:
            for _, block in watched:
                block.observer = None
    recurrent = {layer for layer, block in watched if block.recurrent}
    return {key: torch.stack(parts, 2) if key[0] in recurrent else parts[0] for key, parts in seen.items()}
