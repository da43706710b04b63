"""Looking without touching."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from normbench.norms import Observed, blocks, untouched, use_batch_statistics


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
    with untouched(model):
        if statistics == "probe":
            use_batch_statistics(model)
        yield


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
