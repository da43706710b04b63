"""The statistics that inference works with: of which kind, and a network that works with them for a while."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from normbench.norms.precise import (
    MeanVar,
    exact_statistics,
    images_at_once,
    keeps_variance,
    load_statistics,
    mean_and_var,
    norms_with_statistics,
    of_calls,
    statistics_of,
)
from normbench.norms.state import keep_buffers, preserve_state, use_batch_statistics

Kind = Literal["ema", "cumulative", "averages", "precise", "batch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Batches = Callable[[int], Sequence[Tensor]]  # size -> the same training images [N, C, H, W], in batches of that size


def statistics_for(model: nn.Module, kind: str, batches: Batches, batch_size: int) -> dict[str, MeanVar]:
    """{name of a norm: what it works with in inference}, of norms that keep statistics; none for "batch".

        ema         exponential average over training
        cumulative  plain average over training
        averages    mean of the means and of the unbiased variances of mini-batches, at the present weights
        precise     exact mean and variance, norm by norm, each fed by those already exact
        batch       those of the images that go through together

    Args:
        batch_size: images of a mini-batch in training; a rest that is smaller plays no part in "averages".
    """
    if kind == "averages":
        return average_statistics(model, (images for images in batches(batch_size) if len(images) == batch_size))
    if kind == "precise":
        return exact_statistics(model, batches(images_at_once(model, batches(1)[0][0])))
    return {} if kind == "batch" else statistics_of(model, kind)


def average_statistics(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, MeanVar]:
    """{name of a norm: the mean over `batches` of their means, and of m/(m-1) times their variances}, in float64.

    Each norm normalises by the mini-batch, as in training, so that the next one gets what it gets there. Dropout and
    noise are off, because inference has none. `model` is left as it was.

    In the first norm both are unbiased. Behind it the images of a mini-batch are coupled: what was standardised has
    variance 1 divided by m, not by m-1 (at m = 4, the average is 28% too large in the second norm of the default
    MLP), and the mean of a non-linear function of the mini-batches' statistics is not that function of their mean.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.
    """
    norms, calls, count = norms_with_statistics(model), Counter[str](), 0
    sums: dict[str, dict[int, Any]] = defaultdict(lambda: defaultdict(float))  # of each norm, at each call in a pass

    def add(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, var = mean_and_var(inputs[0])
        m = inputs[0].numel() // len(mean)
        sums[name][calls[name]] += torch.stack([mean, var * (m / max(1, m - 1))]).double()
        calls[name] += 1

    with preserve_state(model), _without_noise(model):
        use_batch_statistics(model)
        hooks = [norm.register_forward_pre_hook(partial(add, name)) for name, norm in norms.items()]
        try:
            for images in batches:
                calls.clear()
                model(images)
                count += 1
        finally:
            for hook in hooks:
                hook.remove()
    found = {name: of_calls(norms[name], [MeanVar(*s / count) for s in each.values()]) for name, each in sums.items()}
    return {n: f if keeps_variance(norms[n]) else MeanVar(f.mean, f.var * torch.nan) for n, f in found.items()}


@contextmanager
def working_with(model: nn.Module, kind: str, statistics: Mapping[str, MeanVar]) -> Iterator[None]:
    """Inside, `model` is in evaluation mode and works with `statistics`, or with "batch" with those of its input.

    Afterwards buffers, modes, gradients and random numbers are as they were. With every kind but "batch" an image's
    output does not depend on the images beside it.

    Raises: Unsupported, from a pass with "batch" whose input has one value per unit.
    """
    with preserve_state(model), _without_noise(model):
        load_statistics(model, statistics)
        hooks = []
        if kind == "batch":
            use_batch_statistics(model)
            # batch renormalization works with its running statistics, too: one batch must not change the next
            restore = keep_buffers(model)
            hooks.append(model.register_forward_hook(lambda *_: restore()))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _without_noise(model: nn.Module) -> Iterator[None]:
    """Inside, norms that shake their output in training (`noisy`) don't."""
    noisy: list[Any] = [module for module in model.modules() if getattr(module, "noisy", False)]
    try:
        for module in noisy:
            module.noisy = False
        yield
    finally:
        for module in noisy:
            module.noisy = True
