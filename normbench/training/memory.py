"""How many bytes a network takes, and a training step."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def size(tensors: Iterable[Tensor]) -> int:
    """Bytes of these tensors together."""
    return sum(tensor.nbytes for tensor in tensors)


def saved_for_backward(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> int:
    """Bytes that a training step keeps for the backward pass, besides parameters and buffers.

    That is of the network on `images` and, given `labels`, of the loss: log probabilities, labels, their total weight.

    Each storage counts once and as a whole, however many operations keep it. On the device "meta" nothing is computed.
    """
    own = {tensor.untyped_storage()._cdata for tensor in chain(model.parameters(), model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}  # holding the storages keeps their ids apart

    def keep(tensor: Tensor) -> None:
        """Nothing is given to the graph: with a tensor that it has computed it would hold itself, for good."""
        storage = tensor.untyped_storage()
        saved.setdefault(storage._cdata, storage)

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        outputs = model(images)
        if labels is not None:
            F.cross_entropy(outputs, labels)
    return sum(storage.nbytes() for key, storage in saved.items() if key not in own)
