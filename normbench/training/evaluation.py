"""Evaluating a trained network with each kind of statistics: how good is it, and how good are they?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.errors import Unsupported
from normbench.noise import key_of
from normbench.norms import (
    KINDS,
    Batches,
    MeanVar,
    average_statistics,
    evaluates_by_example,
    exact_statistics,
    images_in_one_pass,
    load_statistics,
    statistics_for,
    statistics_of,
    use_own_share,
    varies,
    working_with,
)
from normbench.training.loop import Batch, Examples, evaluate, mean_loss_and_accuracy, predictions

IMAGES = 10_000  # training images that a run takes statistics from; `normbench evaluate` takes all
BINS = 15  # of confidence, in the calibration error
GROUPS = 10  # of mini-batches, whose differences show the noise of `averages`
Found = Mapping[str, MeanVar]  # name of a norm -> its statistics


# ---- images


def sample_batches(examples: Examples, count: int, batch_size: int, device: torch.device, seed: int = 0) -> list[Batch]:
    """`count` examples in random order, none twice, in batches of `batch_size`; a rest is smaller.

    The same for every run with this seed, and others for another: what is measured on a sample of the training images
    then varies between seeds as it varies between samples. Splits are kept in an order that mixes the classes evenly:
    neighbours differ more than those of a training batch.
    """
    parts = _positions(examples, count, batch_size, device, seed)
    return [examples.batch(part, key_of(seed, i, "augment", device)) for i, part in enumerate(parts)]


class Sample(Sequence[Tensor]):
    """The images of `sample_batches`, each batch made when it is asked for: a data set takes the memory of one batch.

    Augmentation draws anew for each batch, and the same each time.
    """

    def __init__(
        self,
        examples: Examples,
        count: int,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        self.examples, self.dtype, self.seed = examples, dtype, seed
        self.positions = _positions(examples, count, batch_size, device, seed)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        positions = self.positions[index]
        key = key_of(self.seed, index, "augment", positions.device)
        return self.examples.batch(positions, key)[0].to(self.dtype)


def _positions(examples: Examples, count: int, batch_size: int, device: torch.device, seed: int) -> Sequence[Tensor]:
    order = torch.randperm(len(examples), generator=seeding.generator(seed, "drawn"))[:count].to(device)
    return order.split(batch_size)


def training_images(model: nn.Module, train: Examples, seed: int, count: int = IMAGES) -> Batches:
    """`count` training images drawn by the run's `seed`, or all there are, where `model` is and as precise."""
    weight = next(model.parameters())
    return lambda size: Sample(train, count, size, weight.device, weight.dtype, seed)


# ---- loss and accuracy


def evaluate_with_kind(
    model: nn.Module, kind: str, train: Examples, examples: Examples, batch_size: int, seed: int
) -> tuple[float, float]:
    """As `evaluate`, with the statistics of this kind, from training images drawn by the run's `seed`.

    `model` is left as it was.
    """
    if kind == "ema" or not statistics_of(model):
        return evaluate(model, examples)
    found = statistics_for(model, kind, training_images(model, train, seed), batch_size)
    together = min(batch_size, len(examples)) if kind == "batch" else 200
    result = evaluate_with(model, kind, found, examples, together, batch_size)
    return result.loss, result.accuracy


def load_kind(model: nn.Module, kind: str, train: Examples, batch_size: int, seed: int) -> None:
    """Let `model` work with the statistics of this kind from here on, as the run has evaluated it; not with "batch"."""
    if kind != "ema":
        load_statistics(model, statistics_for(model, kind, training_images(model, train, seed), batch_size))
        use_own_share(model, batch_size if kind == "evalnorm" else None)


@dataclass(frozen=True)
class Evaluation:
    """Over `images` of a test set: mean loss (the negative log likelihood), accuracy (0 to 1), and `ece`, see
    `calibration_error`.
    """

    statistics: str
    batch_size: int
    images: int
    accuracy: float
    loss: float
    ece: float


def evaluate_with(
    model: nn.Module, kind: str, found: Found, examples: Examples, batch_size: int, in_training: int
) -> Evaluation:
    """`model` on all `examples`, `batch_size` at a time; in training it was `in_training`. With "batch", what is left
    over makes the last batch larger: a smaller one would have other statistics.

    Raises: Unsupported with "batch" where a unit has one value in a batch.
    """
    count = len(examples)
    positions = list(torch.arange(count, device=next(model.parameters()).device).split(batch_size))
    if kind == "batch" and len(positions) > 1 and len(positions[-1]) < batch_size:
        positions[-2:] = [torch.cat(positions[-2:])]
    with working_with(model, kind, found, in_training):
        found_logits = list(predictions(model, map(examples.batch, positions)))
    loss, accuracy = mean_loss_and_accuracy(found_logits)
    ece = calibration_error(*(torch.cat(parts) for parts in zip(*found_logits, strict=True)))
    return Evaluation(kind, batch_size, count, accuracy, loss, ece)


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error: sum over bins of n_bin / n |accuracy of the bin - mean confidence of the bin|.

    The confidence of an image is the largest of its probabilities; the BINS bins are equally wide, (0, 1/15] to
    (14/15, 1]. NaN where a logit is not finite.

    Shape: logits [N, classes], labels [N]

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    places = (confidence * BINS).ceil().nan_to_num(1).long().clamp(1, BINS) - 1
    gaps = confidence.new_zeros(BINS).index_add_(0, places, (predicted == labels).double() - confidence)
    return gaps.abs().sum().item() / len(labels)


def possible_kinds(model: nn.Module) -> list[str]:
    """The kinds that the network can work with; "batch" where each unit has two values, see `supports_batch`."""
    able = KINDS if statistics_of(model) else ()
    return [kind for kind in able if kind != "evalnorm" or evaluates_by_example(model)]


def supports_batch(model: nn.Module, examples: Examples, batch_size: int) -> bool:
    """Can the network work with the statistics of a batch of this size?"""
    positions = torch.arange(batch_size, device=next(model.parameters()).device)
    try:
        with working_with(model, "batch", {}):
            model(examples.batch(positions)[0])
    except Unsupported:
        return False
    return True


# ---- errors of statistics


def statistics_errors(found: MeanVar, exact: MeanVar, eps: float) -> tuple[Tensor, Tensor]:
    """Statistics (mean, var) of a norm beside the exact ones (m, v), over its units that vary:

        mean_error  root mean square of (mean - m) / sqrt(v + eps)
        var_ratio   mean of (var + eps) / (v + eps)
        var_error   root mean square of (var + eps) / (v + eps) - 1

    Returns: how many units vary [T], and the three numbers [T, 3], at each time step; T is 1 where there are none.
    """
    (mean, var), (m, v) = ([part.view(-1, part.shape[-1]) for part in both] for both in (found, exact))
    kept = varies(m, v)
    square = torch.where(kept, (mean - m).square() / (v + eps), torch.nan)
    ratio = torch.where(kept, (var + eps) / (v + eps), torch.nan)
    numbers = square.nanmean(1).sqrt(), ratio.nanmean(1), (ratio - 1).square().nanmean(1).sqrt()
    return kept.sum(1), torch.stack(numbers, 1)


@dataclass(frozen=True)
class NormError:
    """How far a norm's statistics are from the exact ones, over its units (medians over time steps, if there are any).

    Args:
        mean_error: root mean square of the means' differences, in exact standard deviations.
        var_ratio: mean of the variances over the exact ones; NaN for a norm of the mean alone.
        noise: standard error of `var_ratio`, from groups of mini-batches; None where it isn't an average over them.
    """

    norm: str
    statistics: str
    units: int
    mean_error: float
    var_ratio: float
    noise: float | None = None


class Statistics:
    """The statistics of each kind that `model` can work with, from training images, and their errors.

    Args:
        kinds: those that are wanted.
        batch_size: of training.
        count: how many training images.
        seed: the run's, by which they are drawn.
    """

    def __init__(
        self, model: nn.Module, kinds: Sequence[str], train: Examples, batch_size: int, count: int, seed: int
    ) -> None:
        self.model, images = model, training_images(model, train, seed, count)
        self.found: dict[str, Found] = {}
        self._groups: list[tuple[float, Found]] = []
        for kind in kinds:
            if kind == "averages":
                self._groups = list(_in_groups(model, images(batch_size), batch_size))
                self.found[kind] = _mean(self._groups)
            else:
                self.found[kind] = statistics_for(model, kind, images, batch_size)
        exactly = deepcopy(model).double()
        fit = images_in_one_pass(exactly, training_images(exactly, train, seed, 1)(1)[0][0])
        exact_images = training_images(exactly, train, seed, count)(fit)[0]
        self.exact, self.exact_images = exact_statistics(exactly, exact_images), len(exact_images)

    def errors(self) -> Iterator[NormError]:
        """Of each norm and kind, against the exact statistics of the network in float64."""
        for name in self.exact:
            for kind, found in self.found.items():
                if name in found and kind != "evalnorm":  # its statistics are each image's own
                    units, (mean_error, var_ratio) = self._error(found, name)
                    of_groups = [self._error(group, name)[1][1] for _, group in self._groups if kind == "averages"]
                    noise = torch.tensor(of_groups).std().item() / len(of_groups) ** 0.5 if len(of_groups) > 1 else None
                    yield NormError(name, kind, units, mean_error, var_ratio, noise)

    def _error(self, found: Found, name: str) -> tuple[int, tuple[float, float]]:
        norm: Any = self.model.get_submodule(name)
        units, numbers = statistics_errors(found[name], self.exact[name], getattr(norm, "eps", 0.0))
        mean_error, var_ratio, _ = numbers.nanmedian(0).values.tolist()
        return int(units.sum()), (mean_error, var_ratio if norm.running_var is not None else torch.nan)


def _in_groups(model: nn.Module, images: Sequence[Tensor], batch_size: int) -> Iterator[tuple[float, Found]]:
    """`average_statistics` of GROUPS groups of mini-batches, each with its share of them."""
    whole = [i for i in range(len(images)) if i < len(images) - 1 or len(images[i]) == batch_size]
    for group in range(min(GROUPS, len(whole))):
        chosen = whole[group::GROUPS]
        yield len(chosen) / len(whole), average_statistics(model, (images[i] for i in chosen))


def _mean(groups: Sequence[tuple[float, Found]]) -> Found:
    def mean(name: str, part: int) -> Tensor:
        return torch.stack([share * group[name][part] for share, group in groups]).sum(0)

    return {name: MeanVar(mean(name, 0), mean(name, 1)) for name in groups[0][1]}
