"""Which image belongs to which split, and which labels are wrong: functions of the labels and two seeds.

`split_seed` parts training from validation images; `draw_seed` draws from the training images.
"""

from collections.abc import Sequence

import numpy as np

from normbench.data.canonical import DataError


def stratified_order(labels: np.ndarray, seed: int | Sequence[int]) -> np.ndarray:
    """A random order of all images in which every beginning holds the classes in their true proportions.

    The k-th image (k = 0, 1, ...) of a class of n, in random order, is placed at (k + 1/2) / n; all are sorted by
    place. The first m then hold the m * n / N images of each class, give or take one: Sainte-Lague's apportionment.
    So any beginning is a fair sample (validation, probe sets), and a shorter one is part of a longer one.
    """
    draws = np.random.PCG64(seed).random_raw(len(labels))  # raw bits: numpy promises that these stay the same
    shuffled = np.argsort(draws, kind="stable")
    _, group, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    by_class = np.argsort(group, kind="stable")
    k = np.empty(len(labels), np.int64)
    k[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return shuffled[np.argsort((k + 0.5) / counts[group], kind="stable")]


def cut(
    labels: np.ndarray, classes: int, *, validation: int, split_seed: int, train_fraction: float, draw_seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the training images into train and validation: the rows of each, class-balanced.

    Validation is the beginning of the stratified order. Train is the rest, or with a `train_fraction` below 1 images
    of the rest that `draw_seed` draws: how many of each class does not depend on the draw, and a smaller fraction
    gives a subset of a larger one.

    Args:
        validation: how many; 0 for a data set with validation images of its own.

    Raises: DataError
    """
    order, total = stratified_order(labels, split_seed), len(labels)

    def train_rows(cut_off: int) -> np.ndarray:
        rest = order[cut_off:]
        return rest[: round(train_fraction * len(rest))]

    def has_all_classes(cut_off: int) -> bool:
        return len(np.unique(labels[train_rows(cut_off)])) == classes

    if validation and not classes <= validation < total:
        fitting = next((n for n in (max(classes, total // 10), classes) if n < total and has_all_classes(n)), None)
        raise DataError(
            f"validation must be {classes} or more, an image per class, and less than the {total:,} training images "
            f"that it is cut from: got {validation}. "
            + (f"Type e.g. dataset.validation={fitting}" if fitting else "Such a dataset needs more images per class.")
        )
    if not has_all_classes(validation):
        missing = classes - len(np.unique(labels[train_rows(validation)]))
        raise DataError(
            f"every class needs a training image: train_fraction={train_fraction} of {total - validation:,} "
            f"leaves {missing} of {classes} classes without one. Use a larger dataset.train_fraction, or a smaller "
            "dataset.validation."
        )
    rest = order[validation:]
    if train_fraction < 1:
        rest = _shuffled_within_classes(rest, labels, draw_seed)
    return rest[: round(train_fraction * len(rest))], order[:validation]


def _shuffled_within_classes(rows: np.ndarray, labels: np.ndarray, draw_seed: int) -> np.ndarray:
    """The same rows, those of each class in random order, so that the classes stay in their places."""
    shuffled = rows[np.argsort(np.random.PCG64((draw_seed, 3)).random_raw(len(rows)), kind="stable")]
    found = np.empty_like(rows)
    found[np.argsort(labels[rows], kind="stable")] = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return found


def mislabel(labels: np.ndarray, classes: int, share: float, draw_seed: int) -> np.ndarray:
    """The labels, `share` of them replaced by another class: the same share of each class, all others equally likely.

    Those of a smaller share are among those of a larger one, with the same replacements.
    """
    changed = stratified_order(labels, (draw_seed, 1))[: round(share * len(labels))]
    steps = np.random.PCG64((draw_seed, 2)).random_raw(len(labels)) % np.uint64(max(1, classes - 1))
    wrong = labels.copy()
    wrong[changed] = (labels[changed] + 1 + steps[changed].astype(np.int64)) % classes
    return wrong
