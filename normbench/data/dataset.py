"""Splits as tensors on the device: the only form in which training sees data."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from normbench.data.augment import AUGMENTATIONS, shift_and_mirror
from normbench.data.cache import default_data_dir
from normbench.data.canonical import DataError, Source
from normbench.data.splits import cut, mislabel, stratified_order
from normbench.data.whitening import zca
from normbench.noise import Key

SCALES = ("standard", "unit", "raw")
WHITENINGS = ("none", "zca")


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of a tensor of images, turned to floats batch by batch: (image - shift) * scale, times `whitening`.

    Args:
        images: all images of the file, shared by the splits cut from it; on the CPU, the mapped cache itself.
        index: the rows that belong to this split, in random, class-mixed order.
        augment: padding in pixels and whether to mirror, before anything else; see `shift_and_mirror`.
        binarize: then make grey levels above 127 to 1, others to 0.

    Shape: images uint8 [M, C, H, W], labels int64 [M], index int64 [N], scale float32 [C, 1, 1], shift the same
        or [C, H, W], whitening float32 [C*H*W, C*H*W].
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    shift: Tensor
    scale: Tensor
    augment: tuple[int, bool] | None = None
    binarize: bool = False
    whitening: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, positions: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """Images and labels at some positions (int64 [B], 0 .. len - 1, on the split's device).

        `key` says what augmentation draws, on the split's device; None draws other numbers each time.

        `index_select` and operations in place: 10 us for 4 MNIST images on one core, where `images[rows]`, `- shift`,
        `* scale` take 16 us (for 64: 24 us and 81 us).

        Shape: float32 [B, C, H, W], int64 [B]
        """
        rows = self.index.index_select(0, positions)
        return self.as_input(self.images.index_select(0, rows), key), self.labels.index_select(0, rows)

    def as_input(self, images: Tensor, key: Key | None = None) -> Tensor:
        """Images of the file, augmented, as a network gets them. Shape: uint8 [B, C, H, W] -> float32"""
        return self.scaled(images if self.augment is None else shift_and_mirror(images, *self.augment, key))

    def scaled(self, images: Tensor) -> Tensor:
        """Images of the file as a network gets them. Shape: uint8 [B, C, H, W] -> float32"""
        images = images.float()
        if self.binarize:
            images.gt_(127)  # in place: 12 times as fast as through bools
        images.sub_(self.shift).mul_(self.scale)
        if self.whitening is not None:
            images = (images.flatten(1) @ self.whitening).view_as(images)
        return images


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready to train on. Shape: `shape` is (C, H, W)."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    checksum: str
    synthetic: bool
    train: Split
    validation: Split
    test: Split

    def sharing_images(self, other: "Dataset") -> "Dataset":
        """This one, on the image tensors of `other`, which is cut from the same source: they are in memory once."""
        same = {name: replace(getattr(self, name), images=getattr(other, name).images)
                for name in ("train", "validation", "test")}  # fmt: skip
        return replace(self, **same)


def prepare(
    source: Source,
    *,
    name: str,
    validation: int = 5000,
    split_seed: int = 0,
    draw_seed: int = 0,
    train_fraction: float = 1.0,
    scale: str = "standard",
    augment: str = "none",
    whiten: str = "none",
    binarize: bool = False,
    label_noise: float = 0.0,
    device: str | torch.device = "cpu",
    data_dir: Path | None = None,
) -> Dataset:
    """Cut a source into train, validation and test on `device`.

    Args:
        validation: images cut from the training images, class-balanced, unless the source has its own.
        train_fraction: share in (0, 1] of the remaining training images that is kept, class-balanced, by draw_seed.
        scale: standard (mean 0, std 1 per channel of the train split) | unit (0..1) | raw (0..255)
        augment: of the train split: none | flip_crop (mirrored with p = 1/2, cut from a frame of 4 black pixels) |
            translate (moved by up to 2 pixels, black where nothing is left). Before binarize, scale and whiten.
        whiten: none | zca, fitted on the train split without augmentation. After scale.
        binarize: grey levels above 127 become 1, others 0. Before scale, for which `unit` and `raw` are then the same.
        label_noise: share in [0, 1) of the train split's labels replaced by another class, by draw_seed.
        data_dir: where the whitening matrix is kept; None is the usual place.

    Raises: DataError for values out of range or that leave a class without training images.
    """
    if augment != "none" and source.train_images.shape[2] == 1:
        raise DataError(f"dataset.augment must be none for images of one row, which can't move up: got {augment}.")
    classes = len(source.classes)
    train_rows, validation_rows = cut(
        source.train_labels, classes, validation=0 if source.validation_images is not None else validation,
        split_seed=split_seed, train_fraction=train_fraction, draw_seed=draw_seed,
    )  # fmt: skip
    shift, factor = _shift_and_scale(source.train_images, train_rows, scale, binarize)
    shifts, factors = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (shift, factor))
    whitening = None
    if whiten == "zca":
        fitted = zca(source, train_rows, factor, binarize=binarize, data_dir=data_dir or default_data_dir())
        shifts, whitening = (_tensor(array, device) for array in fitted)
    train_labels = source.train_labels
    if label_noise:
        train_labels = train_labels.copy()
        train_labels[train_rows] = mislabel(train_labels[train_rows], classes, label_noise, draw_seed)
    images, labels, index = (_tensor(array, device) for array in (source.train_images, train_labels, train_rows))
    train = Split(images, labels, index, shifts, factors, AUGMENTATIONS[augment], binarize, whitening)
    if source.validation_images is not None and source.validation_labels is not None:
        held_out = split_for_testing(source.validation_images, source.validation_labels, train, split_seed)
    else:
        labels, index = _tensor(source.train_labels, device), _tensor(validation_rows, device)
        held_out = replace(train, labels=labels, index=index, augment=None)
    return Dataset(
        name=name,
        classes=source.classes,
        shape=source.train_images.shape[1:],
        checksum=source.checksum,
        synthetic=source.synthetic,
        train=train,
        validation=held_out,
        test=split_for_testing(source.test_images, source.test_labels, train, split_seed),
    )


def split_for_testing(images: np.ndarray, labels: np.ndarray, train: Split, split_seed: int) -> Split:
    """All of these images, standardised and whitened as those of `train` are, and not augmented."""
    device, rows = train.images.device, stratified_order(labels, split_seed)
    found, truth, index = (_tensor(array, device) for array in (images, labels, rows))
    return replace(train, images=found, labels=truth, index=index, augment=None)


def _tensor(array: np.ndarray, device: str | torch.device) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def _shift_and_scale(
    images: np.ndarray, rows: np.ndarray, scale: str, binarize: bool = False
) -> tuple[list[float], list[float]]:
    """Per channel, for (x - shift) * scale; exact up to the last rounding, because the sums are whole numbers.

    var = (n * sum(x^2) - sum(x)^2) / n^2, from how often each grey level occurs: 0.1 s for CIFAR-10.
    """
    channels = images.shape[1]
    if scale != "standard":
        factor = {"unit": 1.0 if binarize else 1 / 255, "raw": 1.0}[scale]
        return [0.0] * channels, [factor] * channels
    counts = torch.zeros(channels, 256, dtype=torch.long)
    for part in np.array_split(np.sort(rows), -(-len(rows) // 1024)):
        pixels = torch.from_numpy(images[part])
        counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in pixels.transpose(0, 1)])
    x = torch.arange(256) > 127 if binarize else torch.arange(256)
    n, sums, squares = int(counts[0].sum()), (counts * x).sum(1).tolist(), (counts * x * x).sum(1).tolist()
    variances = [(n * q - s * s) / n**2 for s, q in zip(sums, squares, strict=True)]
    return [s / n for s in sums], [v**-0.5 if v > 0 else 1.0 for v in variances]  # a constant channel becomes 0
