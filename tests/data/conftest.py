"""Tiny data sets whose checksums stand in for the originals'."""

import logging

import numpy as np
import pytest
from tiny_files import TinyCifar, TinyMnist, md5, pickled_array, random_images

from normbench.data import canonical, cifar10, mnist


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> TinyMnist:
    train = random_images(1, np.arange(60) * 7 % 10, (28, 28))
    test = random_images(2, np.arange(20) * 3 % 10, (28, 28))
    arrays = [array.astype(np.uint8) for array in (*train, *test)]
    header = {3: b"\0\0\x08\x03", 1: b"\0\0\x08\x01"}
    data = [header[a.ndim] + np.array(a.shape, ">i4").tobytes() + a.tobytes() for a in arrays]
    files = dict(zip(mnist.MD5, data, strict=True))
    source = canonical("mnist", [str(k) for k in range(10)], *((x[:, None], y) for x, y in (train, test)))
    monkeypatch.setattr(mnist, "MD5", {name: md5(data) for name, data in files.items()})
    monkeypatch.setattr(mnist, "CHECKSUM", source.checksum)
    return TinyMnist(train, test, files)


@pytest.fixture
def tiny_cifar(monkeypatch: pytest.MonkeyPatch) -> TinyCifar:
    train = random_images(3, np.arange(50) * 7 % 10, (3, 32, 32))
    test = random_images(4, np.arange(20) * 3 % 10, (3, 32, 32))
    files = {}
    for k, name in enumerate(cifar10.MD5):
        images, labels = (
            test if name == "test_batch" else (train[0][10 * k : 10 * k + 10], train[1][10 * k : 10 * k + 10])
        )
        numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
        data = pickled_array(images.reshape(len(images), -1), "numpy.core.multiarray")
        files[name] = b"\x80\x02}(U\x06labels" + numbers + b"U\x04data" + data + b"u."
    monkeypatch.setattr(cifar10, "MD5", {name: md5(data) for name, data in files.items()})
    monkeypatch.setattr(cifar10, "PER_CLASS", {"train": 5, "test": 2})
    monkeypatch.setattr(cifar10, "CHECKSUM", canonical("cifar10", cifar10.CLASSES, train, test).checksum)
    return TinyCifar(train, test, files)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="normbench")
    return caplog
