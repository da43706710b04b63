"""The statistics that inference works with: of which kind, where they come from, and a network that works with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normbench.norms.block import Recorded, blocks, record_activations
from normbench.norms.state import batch_statistics, keep_buffers, preserve_state

Kind = Literal["ema", "averages", "precise", "evalnorm", "batch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Batches = Callable[[int], Sequence[Tensor]]  # size -> the same training images [N, C, H, W], in batches of that size
LARGEST = 2**28  # bytes of the largest tensor when many images go through at once
ONE_PASS = 5000  # images that go through any model at once: without gradients only the present layer's tensors are kept
PART = 128  # images whose moments are taken in float32 in one go, and then merged in float64


class MeanVar(NamedTuple):
    """Mean and variance of a norm's input, shaped as its running mean: [C], or [T, C] by time step."""

    mean: Tensor
    var: Tensor


def statistics_for(model: nn.Module, kind: str, batches: Batches, batch_size: int) -> dict[str, MeanVar]:
    """{name of a norm: what it works with in inference}, of norms that keep statistics; none for "batch".

        ema       the average that the norm has kept over training: exponential, or plain with momentum None
        averages  mean of the means and of the unbiased variances of mini-batches, at the present weights
        precise   exact mean and variance, each norm fed by those already exact, of up to `images_in_one_pass`
        evalnorm  those of ema, from which each image moves them on its own: see `use_own_share`
        batch     those of the images that go through together

    Args:
        batch_size: images of a mini-batch in training; a rest that is smaller plays no part in "averages".
    """
    if kind == "averages":
        return average_statistics(model, (images for images in batches(batch_size) if len(images) == batch_size))
    if kind == "precise":
        return exact_statistics(model, batches(images_in_one_pass(model, batches(1)[0][0]))[0])
    return {} if kind == "batch" else statistics_of(model)


def statistics_of(model: nn.Module) -> dict[str, MeanVar]:
    """{name of a norm: its running statistics}, of norms that keep them; NaN for a variance that isn't kept."""
    found = {}
    for name, norm in norms_with_statistics(model).items():
        mean = norm.running_mean.double()
        var = torch.full_like(mean, torch.nan) if norm.running_var is None else norm.running_var.double()
        found[name] = MeanVar(mean, var)
    return found


def exact_statistics(model: nn.Module, images: Tensor) -> dict[str, MeanVar]:
    """{name of a norm: mean and biased variance of its input over all images and positions}, in float64.

    The input is that of evaluation, with the norms before it already on their exact statistics: in one pass, each norm
    is measured and then works with what was found. `model` is left as it was.

    In recurrent cells each time step has its own. Where a cell keeps one set for all steps, each step works with its
    own all the same, as in training, and the result is their mean.

    Source: Wu & Johnson 2021, arXiv:2105.07576, section 3 ("PreciseBN").
    """

    def measure(norm: Any, row: int, x: Tensor) -> MeanVar:
        found = moments(x)
        load(norm, found, row)
        return found

    with preserve_state(model):
        return measured(model, [images], measure)


def average_statistics(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, MeanVar]:
    """{name of a norm: the mean over `batches` of their means, and of m/(m-1) times their variances}, in float64.

    Each norm normalises by the mini-batch, as in training, so that the next one gets what it gets there. Dropout and
    noise are off, because inference has none. `model` is left as it was.

    In the first norm both are unbiased. Behind it the images of a mini-batch are coupled: what was standardised has
    variance 1 divided by m, not by m-1 (at m = 4, the average is 28% too large in the second norm of the default
    MLP), and the mean of a non-linear function of the mini-batches' statistics is not that function of their mean.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.
    """

    def measure(norm: Any, row: int, x: Tensor) -> MeanVar:
        mean, var = mean_and_var(x)
        m = x.numel() // len(mean)
        return MeanVar(mean, var * (m / max(1, m - 1)) if norm.running_var is not None else var * torch.nan)

    with batch_statistics(model, noise=False):
        return measured(model, batches, measure)


def measured(
    model: nn.Module, batches: Iterable[Tensor], measure: Callable[[Any, int, Tensor], MeanVar]
) -> dict[str, MeanVar]:
    """{name of a norm that keeps statistics: mean over `batches` of `measure(norm, row, x)`}, in float64.

    `measure` is called before the norm works on x; `row` is that of its statistics [T, C]: the time step of a recurrent
    cell, else 0. Where a cell has one row for all time steps, the result is the mean over them, too.
    """
    sums: dict[str, Tensor] = {}  # [2, T, C]
    calls: dict[str, Tensor] = {}  # [T, 1]

    def before(name: str, norm: Any, inputs: tuple[Any, ...]) -> None:
        rows = norm.running_mean.view(-1, norm.num_features)
        if name not in sums:
            sums[name], calls[name] = torch.zeros_like(rows).double().repeat(2, 1, 1), rows.new_zeros(len(rows), 1)
        row = min(inputs[1], len(rows) - 1) if len(inputs) > 1 else 0
        sums[name][:, row] += torch.stack(measure(norm, row, inputs[0])).double()
        calls[name][row] += 1

    norms = norms_with_statistics(model)
    hooks = [norm.register_forward_pre_hook(partial(before, name)) for name, norm in norms.items()]
    try:
        for images in batches:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: MeanVar(*(both / calls[name]).view(2, *norms[name].running_mean.shape)) for name, both in sums.items()
    }


def load_statistics(model: nn.Module, statistics: Mapping[str, MeanVar]) -> None:
    """Make these the running ones, with which evaluation works."""
    for name, found in statistics.items():
        load(model.get_submodule(name), found)


def load(norm: Any, found: MeanVar, row: int | None = None) -> None:
    """Make these the running statistics of a norm; with `row`, those of one time step, or of all where it has one."""
    for kept, value in zip((norm.running_mean, norm.running_var), found, strict=True):
        if kept is not None:
            (kept if row is None else kept.view(-1, norm.num_features)[row]).copy_(value)


def use_own_share(model: nn.Module, batch_size: int | None) -> None:
    """Let evaluation normalise each image by what a mini-batch of `batch_size` with it is expected to have: see
    `given_example`. A ghost batch is a mini-batch. None: by the running statistics alone.
    """
    for norm in norms_with_statistics(model).values():
        norm.own_share = None if batch_size is None else 1 / min(batch_size, getattr(norm, "virtual", batch_size))


def evaluates_by_example(model: nn.Module) -> bool:
    """Can `use_own_share` be had: do all norms with statistics normalise a mini-batch by its own ones in training?"""
    return all(getattr(norm, "by_itself", False) for norm in norms_with_statistics(model).values())


@contextmanager
def working_with(
    model: nn.Module, kind: str, statistics: Mapping[str, MeanVar], batch_size: int | None = None
) -> Iterator[None]:
    """Inside, `model` is in evaluation mode and works with `statistics`, or with "batch" with those of its input; with
    "evalnorm" as after training with mini-batches of `batch_size`, which it needs.

    Afterwards buffers, modes, gradients and random numbers are as they were. With every kind but "batch" an image's
    output does not depend on the images beside it.

    Raises: Unsupported, from a pass with "batch" whose input has one value per unit.
    """
    with batch_statistics(model, noise=False) if kind == "batch" else preserve_state(model):
        load_statistics(model, statistics)
        assert kind != "evalnorm" or batch_size
        use_own_share(model, batch_size if kind == "evalnorm" else None)
        # batch renormalization works with its running statistics, too: one batch must not change the next
        restore = keep_buffers(model)
        hook = model.register_forward_hook(lambda *_: restore())
        try:
            yield
        finally:
            hook.remove()


def norms_with_statistics(model: nn.Module) -> dict[str, Any]:
    """{name: norm} of those that keep running statistics over the batch: ours, and torch's batch norms."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def moments(x: Tensor) -> MeanVar:
    """Mean and biased variance of each feature of x [N, C, ...], in float64 [C].

    Each part of PART images is measured as precisely as x is; then, in float64, mean = sum w_i mean_i,
    var = sum w_i (var_i + (mean_i - mean)^2) with w_i the part's share of the images.
    """
    parts = x.split(PART)
    means, variances = (torch.stack(s).double() for s in zip(*map(mean_and_var, parts), strict=True))  # [parts, C]
    w = torch.tensor([part.numel() for part in parts]).to(means).div(x.numel()).unsqueeze(1)
    mean = (w * means).sum(0)
    return MeanVar(mean, (w * (variances + (means - mean).square())).sum(0))


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


def images_in_one_pass(model: nn.Module, image: Tensor) -> int:
    """How many images exact statistics are taken from, at most: more than ONE_PASS where tensors are small."""
    return max(ONE_PASS, images_at_once(model, image))


def images_at_once(model: nn.Module, image: Tensor, largest: int = LARGEST) -> int:
    """How many images like this one [C, H, W] can go through at once: no tensor of a block exceeds `largest` bytes."""
    sizes = [image.nbytes]

    def watch(layer: str, block: Recorded) -> Callable[[str, Tensor], None]:
        return lambda kind, value: sizes.append(block.steps * value.nbytes)

    with preserve_state(model), record_activations(blocks(model), watch):
        model(image.unsqueeze(0))
    return max(1, largest // max(sizes))
