"""The real files, where they are: found through NORMBENCH_DATA, never downloaded."""

import os

import numpy as np
import pytest

from normbench.data import canonical, cifar10, default_data_dir, mnist, prepare

pytestmark = pytest.mark.real_data


@pytest.fixture(autouse=True)
def no_download(monkeypatch):
    def fail(*args: object) -> None:
        raise AssertionError("tests of real data must not download")

    for module in (mnist, cifar10):
        monkeypatch.setattr(module, "download", fail)
    monkeypatch.setattr(mnist, "download_digits", fail)


def load(module, name):
    if "NORMBENCH_DATA" not in os.environ or module.found(default_data_dir()) is None:
        pytest.skip(f"NORMBENCH_DATA holds no {name}")
    return module.load(default_data_dir())


def checksum_of(source):
    """From the images as they are now, not as the cache says they were."""
    train, test = (source.train_images, source.train_labels), (source.test_images, source.test_labels)
    return canonical(source.name, source.classes, train, test).checksum


def test_mnist_is_the_original():
    source = load(mnist, "mnist")
    assert (source.train_images.shape, source.test_images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert np.bincount(source.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert checksum_of(source) == mnist.CHECKSUM
    data = prepare(source, name="mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)  # as in the LN paper


def test_mnist_files_survive_a_round_trip():
    load(mnist, "mnist")
    raw = default_data_dir() / "MNIST" / "raw"
    for name in mnist.MD5:
        data = mnist._read(raw, name)  # verifies the MD5 of the original
        assert mnist._to_idx(mnist._from_idx(data)) == data


def test_cifar10_is_the_original():
    source = load(cifar10, "cifar10")
    assert (source.train_images.shape, source.test_images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert set(np.bincount(source.train_labels)) == {5000}
    assert set(np.bincount(source.test_labels)) == {1000}
    assert checksum_of(source) == cifar10.CHECKSUM
    # known to eight digits from many independent computations
    mean = source.train_sums.sum(axis=0) / (50_000 * 32 * 32)
    np.testing.assert_allclose(mean / 255, [0.49139968, 0.48215841, 0.44653091], atol=5e-9)
