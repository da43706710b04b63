"""What a data set is before it is cut: decoded images in an order that does not depend on where they came from."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from normbench.errors import UserError


class DataError(UserError):
    """A problem with data that the user can solve; the message says the rule, what came and what to type."""


def check_whole(option: str, value: object, least: int) -> None:
    """Refuse an option that is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DataError(
            f"{option} must be a whole number of {least} or more: got {value!r}. Type e.g. dataset.{option}={least}"
        )


def check_share(option: str, value: object, interval: str, example: float) -> None:
    """Refuse an option that is not a number in `interval`: "(0, 1]", "[0, 1)" or "(0, 1)"."""
    ends = {"[": 0, "]": 1}
    inside = isinstance(value, int | float) and (0 < value < 1 or value in [ends.get(end) for end in interval])
    if isinstance(value, bool) or not inside:
        raise DataError(f"{option} must be in {interval}: got {value!r}. Type e.g. dataset.{option}={example}")


def check_choice(option: str, value: object, choices: Collection[object]) -> None:
    """Refuse an option that is none of `choices`; the first is the usual one."""
    if value not in list(choices):  # a list: what came may have no hash
        first, *others, last = map(str, choices)
        names = f"{', '.join([first, *others])} or {last}"
        raise DataError(f"{option} must be {names}: got {value!r}. Type dataset.{option}={first}")


@dataclass(frozen=True, eq=False)
class Source:
    """Decoded images in canonical order: by class, then by the SHA-256 of the pixels.

    Args:
        checksum: SHA-256 of images and labels of both splits in that order.
        train_sums: per training image and channel, the sum of the pixels: int64 [N, C].
        train_squares: the sum of their squares. With both, mean and std of any subset are exact and cost nothing.
        synthetic: the images are made up; tables must say so.

    Shape: images uint8 [N, C, H, W], labels int64 [N]. Usually memory-mapped.
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    checksum: str
    train_sums: np.ndarray
    train_squares: np.ndarray
    synthetic: bool = False


def canonical(
    name: str,
    classes: Sequence[str],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    synthetic: bool = False,
) -> Source:
    """Sort decoded images into canonical order: the way to make a `Source`.

    Args:
        train: images (uint8 [N, C, H, W]) and labels (0 .. number of classes - 1), in any order.
        test: the same.

    Raises: DataError if shapes, types or labels are not as above.
    """
    for part, (images, labels) in {"train": train, "test": test}.items():
        _check(f"{name} {part}", images, labels, len(classes))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{name}: train and test images need one shape: got {train[0].shape[1:]} and {test[0].shape[1:]}."
        )
    train_images, train_labels = in_canonical_order(*train)
    test_images, test_labels = in_canonical_order(*test)
    sums, squares = _pixel_sums(train_images)
    return Source(
        name=name,
        classes=tuple(classes),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        checksum=_checksum(train_images, train_labels, test_images, test_labels),
        train_sums=sums,
        train_squares=squares,
        synthetic=synthetic,
    )


def _check(what: str, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise DataError(f"{what}: images must be uint8 [N, C, H, W]: got {images.dtype} {images.shape}.")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{what}: one whole-number label per image, [{len(images)}]: got {labels.dtype} {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{what}: labels must be 0 to {classes - 1}: got {labels.min()} to {labels.max()}.")


def in_canonical_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels (int64), sorted."""
    images = np.ascontiguousarray(images)
    digests = [hashlib.sha256(image).digest() for image in images]
    classes = labels.tolist()
    order = sorted(range(len(classes)), key=lambda i: (classes[i], digests[i]))
    return images[order], labels[order].astype(np.int64)


def _pixel_sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sums = np.empty(images.shape[:2], np.int64)
    squares = np.empty_like(sums)
    for start in range(0, len(images), 1024):  # in parts: the squares of all of CIFAR-10 would take 300 MB
        part = images[start : start + 1024]
        part = part.reshape(*part.shape[:2], -1)  # [N, C, H, W] -> [N, C, H*W]
        sums[start : start + 1024] = part.sum(axis=2, dtype=np.int64)
        squares[start : start + 1024] = np.square(part, dtype=np.uint16).sum(axis=2, dtype=np.int64)  # 255^2 < 2^16
    return sums, squares


def _checksum(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
