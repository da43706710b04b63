import hashlib

import numpy as np
import pytest

from normbench.data import DataError, canonical

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (40, 2, 5, 4), dtype=np.uint8), np.arange(40) % 3
TEST = RNG.integers(0, 256, (9, 2, 5, 4), dtype=np.uint8), np.arange(9) % 3


def shuffled(part: tuple[np.ndarray, np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(part[1]))
    return part[0][order], part[1][order]


def test_order_is_by_class_then_by_sha256_of_the_pixels():
    source = canonical("x", "abc", TRAIN, TEST)
    keys = [(int(y), hashlib.sha256(x.tobytes()).digest()) for x, y in zip(*TRAIN, strict=True)]
    expected = sorted(range(40), key=keys.__getitem__)
    np.testing.assert_array_equal(source.train_images, TRAIN[0][expected])
    np.testing.assert_array_equal(source.train_labels, TRAIN[1][expected])
    assert source.train_labels.dtype == np.int64


@pytest.mark.parametrize("seed", [1, 2])
def test_order_of_the_source_does_not_matter(seed):
    one = canonical("x", "abc", TRAIN, TEST)
    other = canonical("x", "abc", shuffled(TRAIN, seed), shuffled(TEST, seed))
    assert one.checksum == other.checksum
    np.testing.assert_array_equal(one.train_images, other.train_images)
    np.testing.assert_array_equal(one.test_labels, other.test_labels)


@pytest.mark.parametrize("part", ["image", "label", "test image", "test label", "shape"])
def test_checksum_notices(part):
    train, test = [array.copy() for array in TRAIN], [array.copy() for array in TEST]
    changed = test if "test" in part else train
    if part == "shape":
        train[0], test[0] = train[0].reshape(40, 2, 4, 5), test[0].reshape(9, 2, 4, 5)
    elif "image" in part:
        changed[0][3, 1, 2, 2] ^= 1
    else:
        changed[1][3] = (changed[1][3] + 1) % 3
    assert canonical("x", "abc", tuple(train), tuple(test)).checksum != canonical("x", "abc", TRAIN, TEST).checksum


def test_validation_images_of_its_own_are_part_of_the_checksum():
    plain, own = canonical("x", "abc", TRAIN, TEST), canonical("x", "abc", TRAIN, TEST, TEST)
    assert plain.validation_images is None
    np.testing.assert_array_equal(own.validation_images, own.test_images)
    assert own.checksum != plain.checksum


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (TRAIN[0].astype(np.float32), TRAIN[1], "uint8"),
        (TRAIN[0][:, 0], TRAIN[1], r"\[N, C, H, W\]"),
        (TRAIN[0][:0], TRAIN[1][:0], "images must be"),
        (TRAIN[0], TRAIN[1][:-1], "label per image"),
        (TRAIN[0], TRAIN[1] + 0.5, "whole-number label"),
        (TRAIN[0], TRAIN[1] + 1, "0 to 2: got 1 to 3"),
        (TRAIN[0], TRAIN[1] - 1, "0 to 2: got -1 to 1"),
        (TRAIN[0][:, :1], TRAIN[1], "one shape"),
    ],
)
def test_refuses_what_is_no_data_set(images, labels, says):
    with pytest.raises(DataError, match=says):
        canonical("x", "abc", (images, labels), TEST)
