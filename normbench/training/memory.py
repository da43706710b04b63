"""How many bytes a network takes, and a training step, and how many FLOPs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


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


class _FlopCounter(TorchDispatchMode):
    """torch's FlopCounterMode without its table of modules, for which it imports torch's compiler (2 s)."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # takes a third of a second where Triton is installed

        super().__init__()
        self.total, self.formulas = 0, flop_registry

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := self.formulas.get(func.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


own = inspect.unwrap(_FlopCounter.__torch_dispatch__)
setattr(own, "__dynamo_disable", own)  # torch would import its compiler at the first call, as in optimizers.py


def flops(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """FLOPs of the matrix products and convolutions of a training step's forward and backward pass, by torch's formulas
    (two per multiplication and addition). What norms, activations, the loss and the optimizer do is not counted.
    """
    with torch.enable_grad(), _FlopCounter() as counter:
        loss = F.cross_entropy(model(images), labels)
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    return counter.total
