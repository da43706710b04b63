"""What a data set is before it is cut: decoded images in an order that does not depend on where they came from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normbench.errors import UserError

Arrays = tuple[np.ndarray, np.ndarray]  # images uint8 [N, C, H, W], labels [N]


class DataError(UserError):
    """A problem with data that the user can solve; the message says the rule, what came and what to type."""


@dataclass(frozen=True, eq=False)
class Source:
    """Decoded images in canonical order: by class, then by the SHA-256 of the pixels.

    Args:
        checksum: SHA-256 of images and labels of all parts in that order.
        synthetic: the images are made up; tables must say so.
        validation_images, validation_labels: of a data set that has its own; None: they are cut from the others.

    Shape: images uint8 [N, C, H, W], labels int64 [N]. Usually memory-mapped.
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    checksum: str
    synthetic: bool = False
    validation_images: np.ndarray | None = None
    validation_labels: np.ndarray | None = None


def canonical(
    name: str,
    classes: Sequence[str],
    train: Arrays,
    test: Arrays,
    validation: Arrays | None = None,
    *,
    synthetic: bool = False,
) -> Source:
    """Sort decoded images into canonical order: the way to make a `Source`.

    Args:
        train: images (uint8 [N, C, H, W]) and labels (0 .. number of classes - 1), in any order.
        test, validation: the same.

    Raises: DataError if shapes, types or labels are not as above.
    """
    digest = hashlib.sha256()
    arrays: dict[str, Any] = {}
    for part, given in {"train": train, "test": test, "validation": validation}.items():
        if given is None:
            continue
        what, (images, labels) = f"{name} {part}", given
        if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
            raise DataError(f"{what}: images must be uint8 [N, C, H, W]: got {images.dtype} {images.shape}.")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise DataError(f"{what}: one whole-number label per image: got {labels.dtype} {labels.shape}.")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise DataError(f"{what}: labels must be 0 to {len(classes) - 1}: got {labels.min()} to {labels.max()}.")
        if images.shape[1:] != train[0].shape[1:]:
            raise DataError(f"{what}: all parts need one shape: got {images.shape[1:]}, train {train[0].shape[1:]}.")
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = in_canonical_order(images, labels)
    for array in arrays.values():
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return Source(name=name, classes=tuple(classes), checksum=digest.hexdigest(), synthetic=synthetic, **arrays)


def in_canonical_order(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Images and labels (int64), sorted."""
    images = np.ascontiguousarray(images)
    keys = [(label, hashlib.sha256(image).digest()) for label, image in zip(labels.tolist(), images, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return images[order], labels[order].astype(np.int64)
