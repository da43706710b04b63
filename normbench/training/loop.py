"""The training loop, on one screen. It knows nothing of logs, norms, instruments or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normbench.noise import Key, next_draw, set_draw
from normbench.training.optimizers import update_parameters

Batch = tuple[Tensor, Tensor]  # images [N, C, H, W] float32, labels [N] int64


class Examples(Protocol):
    """What training needs of a split of a data set."""

    def __len__(self) -> int: ...
    def batch(self, positions: Tensor, key: Key | None = None) -> Batch: ...


@dataclass(frozen=True)
class Step:
    """A moment between two updates.

    Args:
        index: updates done so far.
        batch: the mini-batch that the next update will use; None at the end.
        loss: that of the last update, on the device (reading it waits for the device); None before the first. In a
            stack, of all updates since the step before [updates].
    """

    index: int
    batch: Batch | None
    loss: Tensor | None


@dataclass(frozen=True)
class Update:
    """How a mini-batch changes the weights.

    Args:
        lr: updates done -> learning rate of the next one; None leaves the optimizer's.
        clip_norm: the gradient is shortened to this norm if it is longer.
        accumulate: into how many parts each batch is cut, one after the other, for one update: norms see a part.
        amp: "bf16" lets torch's autocast choose what the forward pass calculates in bfloat16: products and
            convolutions, and what follows them as it comes. Weights, gradients and the loss are float32.
    """

    lr: Callable[[int], float] | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    amp: str = "none"

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside, a forward pass calculates as those of training do."""
        return torch.autocast(device.type, torch.bfloat16) if self.amp == "bf16" else nullcontext()

    def backward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Add the gradient of the batch's mean cross-entropy to the parameters, and return that loss, detached.

        Each part of the batch has noise of its own: that of the network's next draw.
        """
        (x, y), n = batch, self.accumulate
        if n == 1:
            return self._backward(model, x, y)
        parts = [self._backward(model, *part, n) for part in zip(x.chunk(n), y.chunk(n), strict=True)]
        return torch.stack(parts).sum()

    def _backward(self, model: nn.Module, images: Tensor, labels: Tensor, parts: int = 1) -> Tensor:
        next_draw(model)
        with self.precision(images.device):
            logits = model(images)
        loss = F.cross_entropy(logits if self.amp == "none" else logits.float(), labels)
        if parts > 1:
            loss = loss / parts
        loss.backward()
        return loss.detach()

    def apply(self, model: nn.Module, optimizer: torch.optim.Optimizer, index: int) -> None:
        """Change the weights by their gradients, `index` updates having been done."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = self.rate(group, index)
        update_parameters(optimizer)

    def rate(self, group: Mapping[str, Any], index: int) -> float:
        """The learning rate of a group of the optimizer's parameters, `index` updates having been done."""
        return group["lr"] if self.lr is None else self.lr(index)


def steps(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    start: int = 0,
    update: Update = Update(),
) -> Iterator[Step]:
    """Train on `batches` with cross-entropy (the mean over the batch), pausing before each update and after the last.

    Yields one `Step` more than there are batches; the first has index `start`.
    """
    loss, parameters = None, list(model.parameters())
    model.train()
    set_draw(model, start * update.accumulate)
    for index, batch in enumerate(batches, start):
        yield Step(index, batch, loss)
        for parameter in parameters:
            parameter.grad = None
        loss = update.backward(model, batch)
        update.apply(model, optimizer, index)
        start = index + 1
    yield Step(start, None, loss)


def mini_batches(
    examples: Examples,
    batch_size: int,
    order: Callable[[int], Tensor],
    start: int,
    total: int,
    key: Callable[[int], Key] | None = None,
) -> Iterator[Batch]:
    """The mini-batches `start` to `total` of a run; each epoch goes through the examples in a new order.

    The last partial batch of an epoch is dropped: of one example it would break batch norm, and of few distort it.

    Args:
        order: epoch -> permutation [examples], on the examples' device.
        key: index of a batch -> what its augmentation draws: the same for a resumed run, and for every scheme.
    """
    per_epoch, positions = len(examples) // batch_size, torch.empty(0)
    for index in range(start, total):
        epoch, place = divmod(index, per_epoch)
        if place == 0 or index == start:
            positions = order(epoch)
        chosen = positions[place * batch_size : (place + 1) * batch_size]
        yield examples.batch(chosen) if key is None else examples.batch(chosen, key(index))


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples, batch_size: int = 200) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) of `model` in evaluation mode on all `examples`. Its modes are restored.

    On one core of an AMD EPYC, batches of 200 are within 20% of the fastest size for the MLP (1,000), the CNN (200; it
    takes twice as long at 500, which no cache holds) and the LSTM (500).
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    model.eval()
    try:
        places = torch.arange(len(examples), device=device).split(batch_size)
        return loss_and_accuracy(model, map(examples.batch, places))
    finally:
        for module, mode in modes:
            module.training = mode


def loss_and_accuracy(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) of `model`, in the mode that it is in, over all examples of `batches`."""
    return mean_loss_and_accuracy(predictions(model, batches))


@torch.no_grad()
def predictions(model: nn.Module, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Logits [N, classes] and labels [N] of each batch, `model` being in the mode that it is in."""
    with channels_last(model) as ordered:
        for x, y in batches:
            yield model(ordered(x)), y


def mean_loss_and_accuracy(predicted: Iterable[Batch]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0 to 1) over all examples; `predicted`: logits and labels, batch by batch."""
    losses, rights, count = [], [], 0
    for logits, y in predicted:
        losses.append(F.cross_entropy(logits, y, reduction="sum").double())
        rights.append((logits.argmax(1) == y).sum())
        count += len(y)
    return torch.stack(losses).sum().item() / count, torch.stack(rights).sum().item() / count


@contextmanager
def channels_last(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, on a CPU, the kernels of convolutions lie in memory channel beside channel; yields what puts images so.

    Without gradients the CNN then takes half the time, and the resnet 0.8 of it.
    """
    kernels = [p for p in model.parameters() if p.dim() == 4 and p.device.type == "cpu"]
    before = [kernel.data for kernel in kernels]
    for kernel in kernels:
        kernel.data = kernel.data.clone(memory_format=torch.channels_last)
    try:
        yield lambda images: images.clone(memory_format=torch.channels_last) if kernels else images
    finally:
        for kernel, data in zip(kernels, before, strict=True):
            kernel.data = data
