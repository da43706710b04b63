"""Stacks: networks of one architecture that train together, each exactly as it would alone.

    stack = Stack(members, batch_size, start)
    losses = stack.advance(50)              # [50, K]

Parameters, buffers and the optimizers' state are tensors [K, ...], and what a network itself holds are views of them:
whoever looks at a network, or loads a state into it, sees an ordinary one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from normbench.data.dataset import Split
from normbench.noise import Key, next_draw, set_draw
from normbench.norms.weight import with_plain_weight_norm
from normbench.training.loop import Batch, Update
from normbench.training.stacked_optimizers import StackedOptimizer

LARGEST = 256  # networks in a stack
LONGEST = 200  # updates at once: between two of them nobody is asked anything
EVALUATED = 2**14  # images of all networks that are evaluated at once


def vmap(function: Callable[..., Any], in_dims: Any = 0, randomness: str = "error") -> Callable[..., Any]:
    """torch's, without a word on operations that it does network by network: they are slow, and right."""

    def quietly(*arguments: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            return torch.func.vmap(function, in_dims, randomness=randomness)(*arguments)

    return quietly


@dataclass(frozen=True)
class Member:
    """A network of a stack, and what it is trained with: as `loop.steps` and `loop.mini_batches` have it.

    `update.clip_norm` and `update.accumulate` are the same for all members, and so is the kind of optimizer.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    update: Update
    examples: Split
    order: Callable[[int], Tensor]
    key: Callable[[int], Key] | None = None


class StackedModel:
    """K networks of one architecture as one. Their parameters and buffers become views of its own."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.models, self.template = models, with_plain_weight_norm(models[0])
        self.parameters: dict[str, Tensor] = {}  # [K, ...]
        self.buffers: dict[str, Tensor] = {}
        for name, first in models[0].named_parameters():
            own = [model.get_parameter(name) for model in models]
            stacked = torch.stack([parameter.detach() for parameter in own])
            for parameter, view in zip(own, stacked, strict=True):
                parameter.data = view
            self.parameters[name] = stacked.requires_grad_(first.requires_grad)
        for name, _ in models[0].named_buffers():
            path, _, last = name.rpartition(".")
            self.buffers[name] = torch.stack([model.get_buffer(name) for model in models])
            for model, view in zip(models, self.buffers[name], strict=True):
                model.get_submodule(path)._buffers[last] = view

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy of each network on its own mini-batch. Shape: [K, N, ...], [K, N] -> [K]"""

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.template, (parameters, buffers), (x,)), y)

        self.template.train()
        losses: Tensor = vmap(loss)(self.parameters, self.buffers, x, y)
        return losses

    @torch.no_grad()
    def evaluate(self, splits: Sequence[Split]) -> list[tuple[float, float]]:
        """Mean loss and accuracy of each network in evaluation mode on all examples of its split, as `evaluate`."""

        def sums(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Batch:
            logits = functional_call(self.template, (parameters, buffers), (x,))
            return F.cross_entropy(logits, y, reduction="sum").double(), (logits.argmax(1) == y).sum()

        self.template.eval()
        examples, count = StackedExamples(splits), len(splits[0])
        found = []
        for places in torch.arange(count, device=splits[0].index.device).split(max(1, EVALUATED // len(splits))):
            batch = examples.split.batch(places) if examples.same else examples.batch(places.expand(len(splits), -1))
            dims = (0, 0, *[None if examples.same else 0] * 2)
            found.append(torch.stack(vmap(sums, dims)(self.parameters, self.buffers, *batch)))
        losses, right = (torch.stack(found).sum(0) / count).tolist()
        return list(zip(losses, right, strict=True))


def stacked(own: Sequence[Tensor]) -> Tensor:
    """The tensors of K networks as one [K, ...], or the first of them where they are the same for all."""
    return own[0] if all(one is own[0] or torch.equal(one, own[0]) for one in own) else torch.stack(list(own))


class StackedExamples:
    """The batches of K splits of the same images at once. Tensors that are the same for all are there once."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self.split = splits[0]
        self.index, self.labels = (stacked([getattr(split, name) for split in splits]) for name in ("index", "labels"))
        self.tensors: dict[str, Tensor] = {}
        self.dims: dict[str, int | None] = {}
        for name in ("shift", "scale", "whitening"):
            if getattr(self.split, name) is not None:
                self.tensors[name] = tensor = stacked([getattr(split, name) for split in splits])
                self.dims[name] = None if tensor is getattr(self.split, name) else 0

    @property
    def same(self) -> bool:
        """Are all splits the same?"""
        own = (self.index, self.split.index), (self.labels, self.split.labels)
        return all(one is other for one, other in own) and not any(dim == 0 for dim in self.dims.values())

    def batch(self, positions: Tensor, key: Key | None = None) -> Batch:
        """Of each split, as `Split.batch`. Shape: [K, N], a key of seeds [K, 2] -> [K, N, C, H, W], [K, N]"""

        def as_input(tensors: dict[str, Any], images: Tensor, seed: Tensor | None) -> Tensor:
            own = None if key is None or seed is None else key._replace(seed=seed)
            return replace(self.split, **tensors).as_input(images, own)

        def taken(tensor: Tensor, places: Tensor) -> Tensor:
            """[M] or [K, M], at places [K, N]; not by vmap, which is slow at this."""
            return tensor[places] if tensor.dim() == 1 else tensor.gather(1, places)

        rows = taken(self.index, positions)
        images = self.split.images.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        seeds, dim = (None, None) if key is None else (key.seed, 0)
        return vmap(as_input, in_dims=(self.dims, 0, dim))(self.tensors, images, seeds), taken(self.labels, rows)


class Stack(StackedModel):
    """K networks in training. What an update needs and changes is in tensors, so that it can be a CUDA graph.

    Args:
        batch_size: images of a mini-batch, or a part of one where gradients are accumulated.
        start: updates that each of them has done.
    """

    def __init__(self, members: Sequence[Member], batch_size: int, start: int) -> None:
        super().__init__([member.model for member in members])
        self.members, self.index = members, start
        self.clip_norm, self.accumulate = members[0].update.clip_norm, members[0].update.accumulate
        optimizers = [member.optimizer for member in members]
        self.optimizer = StackedOptimizer(self.parameters, self.models, optimizers)
        self.trained = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        for model in self.models:
            model.train()
            set_draw(model, start * self.accumulate)
        self.draws = [buffer for name, buffer in self.buffers.items() if name.split(".")[-1] == "noise_draw"]
        device, k = self.trained[0].device, len(members)
        self.examples = StackedExamples([member.examples for member in members])
        self.key = None
        if members[0].key is not None:
            keys = [member.key(start) for member in members if member.key is not None]
            self.key = keys[0]._replace(seed=torch.stack([key.seed for key in keys]), draw=keys[0].draw.clone())
        self.per_epoch = len(members[0].examples) // (batch_size * self.accumulate)
        self.positions = torch.zeros(k, self.per_epoch, batch_size * self.accumulate, dtype=torch.long, device=device)
        self.place = torch.full((1,), start % self.per_epoch, device=device)  # of the next batch in its epoch
        self.row = torch.zeros(1, dtype=torch.long, device=device)  # of this update in the two below
        self.lrs = torch.zeros(LONGEST, k, dtype=torch.float64, device=device)
        self.recorded = torch.zeros(LONGEST, k, dtype=self.trained[0].dtype, device=device)
        self._read_order()
        self._read_lrs(LONGEST if members[0].update.lr is None else 1)
        self._update: Callable[[], None] = self._computed
        if device.type == "cuda":
            with self.unchanged():
                self._update = captured(self._computed, device)

    def batch(self) -> Batch:
        """The mini-batches that the next update will use. Shape: [K, N, C, H, W], [K, N]"""
        return self.examples.batch(self.positions.index_select(1, self.place).squeeze(1), self.key)

    def advance(self, updates: int) -> Tensor:
        """Do so many updates, at most LONGEST. Returns the loss of each network in each of them, [updates, K]."""
        self.row.zero_()
        if self.members[0].update.lr is not None:
            self._read_lrs(updates)
        for _ in range(updates):
            self._update()
            self.index += 1
            if self.index % self.per_epoch == 0:
                self._read_order()
        return self.recorded[:updates].clone()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Updates done inside leave no trace: all that they change is put back, statistics and noise included."""
        counters = [self.place, self.row, *([] if self.key is None else [self.key.draw])]
        changed = [*self.parameters.values(), *self.buffers.values(), *self.optimizer.tensors, *counters]
        before = [tensor.detach().clone() for tensor in changed]
        yield
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)

    def _read_order(self) -> None:
        """The order of the epoch that begins, or is going on."""
        for own, member in zip(self.positions, self.members, strict=True):
            own.copy_(member.order(self.index // self.per_epoch)[: own.numel()].view(own.shape))

    def _read_lrs(self, updates: int) -> None:
        groups = [(member.update, member.optimizer.param_groups[0]) for member in self.members]
        lrs = [[update.rate(group, self.index + i) for update, group in groups] for i in range(updates)]
        self.lrs[:updates] = torch.tensor(lrs, dtype=torch.float64)

    def _computed(self) -> None:
        """One update of every network, by the operations that it consists of. Nothing waits for the device."""
        x, y = self.batch()
        n, total = self.accumulate, torch.zeros_like(self.recorded[0])
        gradients: list[Tensor | None] = [None] * len(self.trained)
        for images, labels in zip(x.chunk(n, 1), y.chunk(n, 1), strict=True):
            for draw in self.draws:
                draw.add_(1)
            losses = self.losses(images, labels) / n
            found = torch.autograd.grad(losses.sum(), self.trained, allow_unused=True)
            gradients = [b if a is None else a if b is None else a + b for a, b in zip(gradients, found, strict=True)]
            total = total + losses.detach()
        if self.clip_norm is not None:
            self._clip([gradient for gradient in gradients if gradient is not None], self.clip_norm)
        self.optimizer.step(gradients, self.lrs.index_select(0, self.row).squeeze(0))
        self.recorded.index_copy_(0, self.row, total.unsqueeze(0))
        self.row.add_(1)
        self.place.add_(1).remainder_(self.per_epoch)
        if self.key is not None:
            self.key.draw.add_(1)

    @staticmethod
    def _clip(gradients: Sequence[Tensor], longest: float) -> None:
        """As `clip_grad_norm_`, network by network."""
        norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
        factors = (longest / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))


def captured(update: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`update` as one CUDA graph: what is returned computes what `update` computes, without Python.

    `update` is called a few times and must work on the same tensors each time.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # cuBLAS, and autograd's thread, get what they need on this stream: they can't while it is captured
            matrix = torch.ones(8, 8, device=device, requires_grad=True)
            (matrix @ matrix).sum().backward()
            for _ in range(3):
                update()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            update()
    return graph.replay


def why_not_stacked(models: Sequence[nn.Module], x: Tensor, y: Tensor) -> str | None:
    """What a stack of these networks would do wrong in a training step on these mini-batches; None: nothing.

    A module may do something for which vmap has no rule, draw from torch's own generator, look at a number, or write
    its statistics where they are lost. The networks are spoiled afterwards.

    Shape: x [K, N, ...], y [K, N]
    """
    alone = [deepcopy(model).train() for model in models]
    expected: list[list[Tensor]] = []
    for k, model in enumerate(alone):
        next_draw(model)
        loss = F.cross_entropy(model(x[k]), y[k])
        own = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True)
        expected.append([loss, *gradients, *model.buffers()])
    try:
        stacked = StackedModel(models)
        for model in models:
            next_draw(model)
        losses = stacked.losses(x, y)
        trained = [parameter for parameter in stacked.parameters.values() if parameter.requires_grad]
        gradients = torch.autograd.grad(losses.sum(), trained, allow_unused=True, materialize_grads=True)
    except Exception as error:  # whatever a user's module does
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    found = zip(*([losses, *gradients, *stacked.buffers.values()]), strict=True)
    same = (torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
            for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True))  # fmt: skip
    return None if all(same) else "its numbers are others than alone"
