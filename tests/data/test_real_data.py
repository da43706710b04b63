"""The real files, where they are: found through NORMBENCH_DATA, never downloaded."""

import os

import numpy as np
import pytest

from normbench.data import canonical, default_data_dir, prepare
from normbench.data.sources import CIFAR10, MNIST

pytestmark = pytest.mark.real_data


def load(files):
    if "NORMBENCH_DATA" not in os.environ or files.found(default_data_dir()) is None:
        pytest.skip(f"NORMBENCH_DATA holds no {files.title}")
    return files.load(default_data_dir())


def checksum_of(source):
    """From the images as they are now, not as the cache says they were."""
    train, test = (source.train_images, source.train_labels), (source.test_images, source.test_labels)
    return canonical(source.name, source.classes, train, test).checksum


def test_mnist_is_the_original():
    source = load(MNIST)
    assert (source.train_images.shape, source.test_images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert np.bincount(source.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert checksum_of(source) == MNIST.checksum
    data = prepare(source, name="mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)  # as in the LN paper


@pytest.mark.full  # 60,000 pictures to decode
def test_cifar10_is_the_original():
    source = load(CIFAR10)
    assert (source.train_images.shape, source.test_images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert set(np.bincount(source.train_labels)) == {5000}
    assert set(np.bincount(source.test_labels)) == {1000}
    assert checksum_of(source) == CIFAR10.checksum
    # known to eight digits from many independent computations
    mean = source.train_images.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(mean / 255, [0.49139968, 0.48215841, 0.44653091], atol=5e-9)
