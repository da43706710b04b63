"""The shift between training images and others, at the weights that training ended with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from normbench import seeding
from normbench.data import CORRUPTIONS, Corrupted, Split, check_corruption
from normbench.instruments.distances import NUMBERS, Values, distances
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Key, Probe, ascending, by_unit
from normbench.instruments.statistics import CHUNK
from normbench.norms import blocks, exact_statistics, images_at_once, statistics_of, working_with
from normbench.training.evaluation import sample_batches
from normbench.training.loop import Examples, Step, loss_and_accuracy

COMPARED = tuple(name for name in NUMBERS if not name.startswith("moved"))  # that is of the same images
IMAGES = (16, 64, 256, 1024)  # that statistics are re-estimated with
PIXELS = 1024  # of an image that are taken, at most
Condition = tuple[str, int]  # corruption, severity


class TrainTestShift(Instrument):
    """How far each tensor of each block is, for corrupted images, from what it is for training images, at one and the
    same weights: the shift of the data, where `shift` is that of the weights, at the same images. `distances` has the
    formulas, the same as there; the standard deviation that scales is that of both sets of images together.

    Corrupted are validation images: of the distribution of the test images, and not trained on either, where the test
    set is read once. Severity 0 ("none") are the same images, uncorrupted: what another choice of images changes.
    The network works as in inference, with two kinds of `statistics`:

        training      its own, the running averages
        re-estimated  exact ones of n unlabelled images with the same corruption, `images`; no image that they are of
                      is among those that accuracy is measured on; the run's seed draws them. Of schemes with
                      running statistics only

    Rows of layers, for its own statistics and for those of the greatest n, have the numbers; `tensor` is that of
    `shift`, or "input": what the block before passes on (its last tensor), for the first block the pixels. Rows of
    the network as a whole (`layer` empty) have loss and accuracy, for each n.

    In a run of the MLP on MNIST it takes 1.4 s with batch norm and 0.7 s without (one thread; torchvision's import
    included). With batch norm that is 150,000 images through the network: for a CNN, ask for fewer.

    Args:
        corruptions: of those of `normbench.data`.
        severities: of 1 to 5.
        images: numbers n of images that statistics are re-estimated with; at most half of the validation set.
        examples: at most so many validation images that accuracy is measured on.
        sample: js, costly, is of at most so many units of a tensor, evenly spaced.

    Source: Nado et al. 2020, arXiv:2006.10963; Schneider et al. 2020, arXiv:2006.16971 (re-estimated statistics).
    """

    name, when = "train_test_shift", "end"
    columns = (
        "corruption", "severity", "statistics", "images", "units", "constant", *COMPARED, "loss", "accuracy"
    )  # fmt: skip

    def __init__(
        self,
        *,
        corruptions: Sequence[str] = CORRUPTIONS,
        severities: Sequence[int] = (1, 3, 5),
        images: Sequence[int] = IMAGES,
        examples: int = 1000,
        sample: int = 16,
    ) -> None:
        self.conditions = conditions(corruptions, severities)
        if not all(isinstance(n, int) and n >= 2 for n in images):
            raise ValueError(f"TrainTestShift.images are whole numbers, 2 or more: got {list(images)}.")
        if examples < 2 or sample < 1:
            raise ValueError(f"TrainTestShift needs examples=2, sample=1 or more: got {examples}, {sample}.")
        self.images, self.examples, self.sample = tuple(sorted(set(images))), examples, sample

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        held_out = cast(Split, self.setting.validation)
        yield from compare(model, probe, self.setting.train, held_out, self.conditions, self.images, self.examples,
                           self.sample, self.setting.seed)  # fmt: skip


def conditions(corruptions: Sequence[str], severities: Sequence[int]) -> list[Condition]:
    """("none", 0), then each corruption with each severity. Raises ValueError for unknown ones."""
    for name in corruptions:
        for severity in severities:
            check_corruption(name, severity)
    return list(dict.fromkeys([("none", 0), *((name, s) for name in corruptions for s in severities)]))


def compare(
    model: nn.Module,
    probe: Probe,
    train: Examples,
    held_out: Split,
    conditions: Sequence[Condition],
    counts: Sequence[int],
    examples: int,
    sample: int = 16,
    seed: int = 0,
) -> Iterator[Row]:
    """The rows of `TrainTestShift`.

    Args:
        probe: which tensors, and of how many images.
        held_out: what is corrupted. Accuracy is of its first images; those for statistics are drawn from the others.
        seed: the run's, by which these and the training images are drawn.
    """
    device = probe.images.device
    counts = [n for n in counts if n <= len(held_out) // 2]
    most = max(counts, default=0)
    measured = torch.arange(min(examples, len(held_out) - most), device=device)
    order = torch.randperm(len(held_out) - len(measured), generator=seeding.generator(seed, "re-estimated"))
    spare = len(measured) + order[:most].to(device)
    shown = min(len(probe.images), len(measured), len(train))
    before = values_of(model, probe.of(*sample_batches(train, shown, shown, device, seed)[0]))
    for name, severity in conditions:
        corrupted = Corrupted(held_out, name, severity)
        images, labels = corrupted.batch(measured)
        fit = images_at_once(model, images[0], CHUNK)
        batches = list(zip(images.split(fit), labels.split(fit), strict=True))
        others = corrupted.batch(spare)[0] if counts else images[:0]
        for n in (0, *counts) if statistics_of(model) else (0,):
            row: Row = {"corruption": name, "severity": severity, "statistics": "training"}
            if n:
                row |= {"statistics": "re-estimated", "images": n}
            with working_with(model, "precise" if n else "ema", exact_statistics(model, others[:n]) if n else {}):
                loss, accuracy = loss_and_accuracy(model, batches)
                now = values_of(model, probe.of(images[:shown], labels[:shown])) if n in (0, most) else {}
            yield row | {"layer": "", "tensor": "", "loss": loss, "accuracy": accuracy}
            yield from (row | numbers for numbers in between(before, now, model, sample))


def values_of(model: nn.Module, probe: Probe) -> dict[Key, Values]:
    """Each tensor of each block, and the pixels as the input of the first, in inference."""
    pixels = probe.images.flatten(1)
    pixels = pixels[:, :: math.ceil(pixels.shape[1] / PIXELS)].unsqueeze(2)
    first = next(name for name, _ in blocks(model))
    found: dict[Key, Tensor] = {(first, "input"): ascending(by_unit(pixels))}
    found |= {key: probe.ordered(key, "running") for key in probe.tensors("running")}
    # No image has its like in the other set: single values are not compared.
    return {key: Values.of(None, values) for key, values in found.items()}


def between(before: Mapping[Key, Values], now: Mapping[Key, Values], model: nn.Module, sample: int) -> list[Row]:
    """How far each tensor is from what it was, and the input of each block."""
    units = [len(z.mean) for z in now.values()]
    numbers = distances([(z, before[key]) for key, z in now.items()], [math.ceil(n / sample) for n in units])
    found: dict[Key, Row] = {key: {"units": n, **of} for key, n, of in zip(now, units, numbers, strict=True)}
    last = {layer: row for (layer, tensor), row in found.items() if tensor != "input"}
    for one, after in pairwise(name for name, _ in blocks(model)):
        if one in last:
            found[after, "input"] = last[one]
    return [{"layer": layer, "tensor": tensor, **row} for (layer, tensor), row in found.items()]
