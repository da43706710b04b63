"""Exact running statistics: those of all images at once, instead of averages over past batches at past weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normbench.norms.block import Recorded, blocks, record_activations
from normbench.norms.state import preserve_state
from normbench.norms.statistics import RunningStatistics

LARGEST = 2**28  # bytes of the largest tensor when many images go through at once
KEPT = {"ema": "running", "cumulative": "average"}  # kind -> how a norm calls what it keeps of it
PART = 128  # images whose moments are taken in float32 in one go, and then merged in float64


class MeanVar(NamedTuple):
    """Mean and variance of a norm's input, shaped as its running mean: [C], or [T, C] by time step."""

    mean: Tensor
    var: Tensor


def exact_statistics(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, MeanVar]:
    """{name of a norm: mean and biased variance of its input over all images and positions}, in float64.

    The input is that of evaluation, with the norms before it already on their exact statistics. The variance is the
    total one: the average of the batches' variances lacks the variance of their means. `model` is left as it was.

    In recurrent cells each time step has its own. Where a cell keeps one set for all steps, each step works with its
    own all the same, as in training, and the result is their mean.

    Args:
        batches: images [N, C, H, W] each. One batch of all takes one pass. Of more, each norm (and time step) takes a
            pass that ends there.

    Source: Wu & Johnson 2021, arXiv:2105.07576, section 3 ("PreciseBN").
    """
    return _Search(model, batches).run() if batches and norms_with_statistics(model) else {}


def statistics_of(model: nn.Module, kind: str) -> dict[str, MeanVar]:
    """{name of a norm: the exponential ("ema") or plain ("cumulative") averages that it keeps}, of norms that do.

    A norm that keeps no variance shows NaN for it.
    """
    found, kept = {}, KEPT[kind]
    for name, norm in norms_with_statistics(model).items():
        if hasattr(norm, f"{kept}_mean"):
            mean = getattr(norm, f"{kept}_mean").double()
            var = getattr(norm, f"{kept}_var").double() if keeps_variance(norm) else torch.full_like(mean, torch.nan)
            found[name] = MeanVar(mean, var)
    return found


def load_statistics(model: nn.Module, statistics: Mapping[str, MeanVar]) -> None:
    """Make these the running ones, with which evaluation works."""
    for name, (mean, var) in statistics.items():
        norm: Any = model.get_submodule(name)
        norm.running_mean.copy_(mean)
        if keeps_variance(norm):
            norm.running_var.copy_(var)


def norms_with_statistics(model: nn.Module) -> dict[str, Any]:
    """{name: norm} of those that keep running statistics over the batch: ours, and torch's batch norms."""
    kinds = RunningStatistics, _BatchNorm
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds) and m.running_mean is not None}


def keeps_variance(norm: nn.Module) -> bool:
    return getattr(norm, "running_var", None) is not None


class _Enough(Exception):
    """A batch has reached a norm whose statistics need the other batches, too."""


class _Search:
    """Batch after batch is passed through up to the first norm that isn't known. The last one makes it known, and goes
    on to the next. The first batch that reaches the end ends the search.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Tensor]) -> None:
        self.model, self.batches, self.norms = model, batches, norms_with_statistics(model)
        self.moments: dict[tuple[str, int], Moments] = {}  # of each norm, at each of its calls in a pass
        self.known: dict[tuple[str, int], MeanVar] = {}
        self.counted: set[int] = set()  # the batches in the moments of the first norm that isn't known
        self.calls: dict[str, int] = {}
        self.current = 0

    def run(self) -> dict[str, MeanVar]:
        with preserve_state(self.model):
            hooks = [norm.register_forward_pre_hook(partial(self._before, name)) for name, norm in self.norms.items()]
            try:
                while not any(self._passes(i) for i in range(len(self.batches)) if i not in self.counted):
                    pass
            finally:
                for hook in hooks:
                    hook.remove()
        return {name: self._of(name) for name in self.calls}

    def _passes(self, index: int) -> bool:
        """Does this batch reach the end?"""
        self.current, self.calls = index, {}
        try:
            self.model(self.batches[index])
        except _Enough:
            return False
        return True

    def _before(self, name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        key = name, self.calls.get(name, 0)
        self.calls[name] = key[1] + 1
        if key not in self.known:
            self.moments.setdefault(key, Moments()).add(inputs[0])
            self.counted.add(self.current)
            if len(self.counted) < len(self.batches):
                raise _Enough
            self.known[key] = self.moments.pop(key).result()
            self.counted.clear()
        mean, var = self.known[key]
        _row(norm.running_mean, key[1]).copy_(mean)
        if keeps_variance(norm):
            _row(norm.running_var, key[1]).copy_(var)

    def _of(self, name: str) -> MeanVar:
        return of_calls(self.norms[name], [self.known[name, call] for call in range(self.calls[name])])


def of_calls(norm: Any, found: Sequence[MeanVar]) -> MeanVar:
    """The statistics of each call of `norm` in a pass, in the shape of its own: their mean where it keeps one set."""
    mean, var = (torch.stack(part) for part in zip(*found, strict=True))  # [calls, C]
    shape = norm.running_mean.shape
    if mean.shape != shape:
        mean, var = mean.mean(0), var.mean(0)
    return MeanVar(mean.view(shape), var.view(shape))


def _row(statistics: Any, call: int) -> Tensor:
    """The part of a norm's running statistics [C] or [T, C] that its `call` in a pass works with."""
    return statistics[min(call, len(statistics) - 1)] if statistics.dim() == 2 else statistics


class Moments:
    """Mean and biased variance of each feature of all tensors [N, C, ...] that are added.

    Each part is measured by itself; then, in float64, mean = sum w_i mean_i, var = sum w_i (var_i + (mean_i - mean)^2)
    with w_i its share of the values.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, Tensor, Tensor]] = []

    def add(self, x: Tensor) -> None:
        self.parts += [(part.numel(), *mean_and_var(part)) for part in x.split(PART)]

    def result(self) -> MeanVar:
        sizes, means, variances = zip(*self.parts, strict=True)
        mean_of, var_of = torch.stack(means).double(), torch.stack(variances).double()  # [parts, C]
        w = torch.tensor(sizes).to(mean_of).div(sum(sizes)).unsqueeze(1)
        mean = (w * mean_of).sum(0)
        return MeanVar(mean, (w * (var_of + (mean_of - mean).square())).sum(0))


def mean_and_var(x: Tensor, dims: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over `dims`, by default of each feature of [N, C, ...].

    3 to 10 times as fast as torch.var_mean on a CPU.
    """
    dims = (0, *range(2, x.dim())) if dims is None else dims
    mean = x.mean(dims, keepdim=True)
    var = (x - mean).square_().mean(dims)
    return mean.view(var.shape), var


def varies(mean: Tensor, var: Tensor) -> Tensor:
    """Which features vary by more than float32 rounds."""
    return var > 1e-12 * mean.square()


def images_at_once(model: nn.Module, image: Tensor, largest: int = LARGEST) -> int:
    """How many images like this one [C, H, W] can go through at once: no tensor of a block exceeds `largest` bytes."""
    sizes = [image.nbytes]

    def watch(layer: str, block: Recorded) -> Callable[[str, Tensor], None]:
        return lambda kind, value: sizes.append(block.steps * value.nbytes)

    with preserve_state(model), record_activations(blocks(model), watch):
        model(image.unsqueeze(0))
    return max(1, largest // max(sizes))
