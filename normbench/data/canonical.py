"""What a data set is before it is cut: decoded images in an order that does not depend on where they came from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normbench.errors import UserError


class DataError(UserError):
    """A problem with data that the user can solve; the message says the rule, what came and what to type."""


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
    for what, (images, labels) in {f"{name} train": train, f"{name} test": test}.items():
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise DataError(f"{what}: images must be uint8 [N, C, H, W]: got {images.dtype} {images.shape}.")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(f"{what}: one whole-number label per image: got {labels.dtype} {labels.shape}.")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise DataError(f"{what}: labels must be 0 to {len(classes) - 1}: got {labels.min()} to {labels.max()}.")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(f"{name}: train and test need one shape: got {train[0].shape[1:]} and {test[0].shape[1:]}.")
    arrays = (*in_canonical_order(*train), *in_canonical_order(*test))
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return Source(name, tuple(classes), *arrays, digest.hexdigest(), *_pixel_sums(arrays[0]), synthetic)


def in_canonical_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels (int64), sorted."""
    images = np.ascontiguousarray(images)
    keys = [(label, hashlib.sha256(image).digest()) for label, image in zip(labels.tolist(), images, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return images[order], labels[order].astype(np.int64)


def _pixel_sums(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sums, squares = np.empty((2, *images.shape[:2]), np.int64)
    for start in range(0, len(images), 1024):  # in parts: the squares of all of CIFAR-10 would take 300 MB
        part = images[start : start + 1024]
        sums[start : start + 1024] = part.sum(axis=(2, 3), dtype=np.int64)
        # 255^2 < 2^16
        squares[start : start + 1024] = np.square(part, dtype=np.uint16).sum(axis=(2, 3), dtype=np.int64)
    return sums, squares
