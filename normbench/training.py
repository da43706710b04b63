"""The training loop, on one screen. It knows nothing of logs, norms, instruments or files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]  # images [N, C, H, W] float32, labels [N] int64


class Examples(Protocol):
    """What training needs of a split of a data set."""

    def __len__(self) -> int: ...
    def batch(self, positions: Tensor) -> Batch: ...


@dataclass(frozen=True)
class Step:
    """A moment between two updates.

    Args:
        index: updates done so far.
        batch: the mini-batch that the next update will use; None at the end.
        loss: that of the last update, on the device (reading it waits for the device); None before the first.
    """

    index: int
    batch: Batch | None
    loss: Tensor | None


def steps(
    model: nn.Module, batches: Iterator[Batch], optimizer: torch.optim.Optimizer, start: int = 0
) -> Iterator[Step]:
    """Train on `batches` with cross-entropy (the mean over the batch), pausing before each update and after the last.

    Yields one `Step` more than there are batches; the first has index `start`.
    """
    loss = None
    model.train()
    for index, (x, y) in enumerate(batches, start):
        yield Step(index, (x, y), loss)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss, start = loss.detach(), index + 1
    yield Step(start, None, loss)


def mini_batches(
    examples: Examples, batch_size: int, order: Callable[[int], Tensor], start: int, total: int
) -> Iterator[Batch]:
    """The mini-batches `start` to `total` of a run; each epoch goes through the examples in a new order.

    The last partial batch of an epoch is dropped: of one example it would break batch norm, and of few distort it.

    Args:
        order: epoch -> permutation [examples], on the examples' device.
    """
    per_epoch, positions = len(examples) // batch_size, torch.empty(0)
    for index in range(start, total):
        epoch, place = divmod(index, per_epoch)
        if place == 0 or index == start:
            positions = order(epoch)
        yield examples.batch(positions[place * batch_size : (place + 1) * batch_size])


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples, batch_size: int = 200) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) of `model` in evaluation mode on all `examples`. Its modes are restored."""
    modes = [(module, module.training) for module in model.modules()]
    losses, rights = [], []
    device = next(model.parameters()).device
    model.eval()
    try:
        for positions in torch.arange(len(examples), device=device).split(batch_size):
            x, y = examples.batch(positions)
            logits = model(x)
            losses.append(F.cross_entropy(logits, y, reduction="sum").double())
            rights.append((logits.argmax(1) == y).sum())
    finally:
        for module, mode in modes:
            module.training = mode
    loss, correct = torch.stack(losses).sum().item(), torch.stack(rights).sum().item()
    return loss / len(examples), correct / len(examples)


OPTIMIZERS = ("sgd", "momentum", "adam")


def make_optimizer(
    name: str, model: nn.Module, *, lr: float, weight_decay: float = 0.0, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """The optimizer called `name` (one of OPTIMIZERS).

    Weight decay acts on the weights of linear layers, convolutions and cells alone (for weight normalisation: on v):
    not on biases, gamma, beta and g.

    Args:
        momentum: of `momentum`; plain `sgd` has none, `adam` has its own (0.9, 0.999).
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for path, parameter in model.named_parameters():
        last = path.split(".")[-1]
        is_weight = parameter.dim() > 1 and last != "original0"  # original0 is g, of shape [C', 1, ...]
        (decayed if is_weight else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}: got {name}.")
    # One kernel for all parameters: a step of the default MLP takes half the time on a CPU, and 1/10 on a GPU.
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum if name == "momentum" else 0.0, fused=True)
