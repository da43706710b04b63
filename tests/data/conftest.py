"""Tiny data sets whose checksums stand in for the originals'."""

import gzip
import logging

import numpy as np
import pytest
from tiny_files import TinyCifar, TinyMnist, md5, pickled_array, random_images

from normbench.data import canonical
from normbench.data.cifar import Cifar
from normbench.data.cifar10 import CIFAR10
from normbench.data.cifar100 import CIFAR100
from normbench.data.fashion_mnist import FASHION_MNIST
from normbench.data.mnist import MNIST


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> TinyMnist:
    tiny = make_idx()
    monkeypatch.setattr(MNIST, "md5", {name: md5(data) for name, data in tiny.files.items()})
    parts = ((images[:, None], labels) for images, labels in (tiny.train, tiny.test))
    monkeypatch.setattr(MNIST, "checksum", canonical("mnist", MNIST.classes, *parts).checksum)
    return tiny


@pytest.fixture
def tiny_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> TinyMnist:
    tiny = make_idx()
    packed = {f"{name}.gz": md5(gzip.compress(data, mtime=0)) for name, data in tiny.files.items()}
    monkeypatch.setattr(FASHION_MNIST, "md5", packed)
    return tiny


def make_idx() -> TinyMnist:
    train = random_images(1, np.arange(60) * 7 % 10, (28, 28))
    test = random_images(2, np.arange(20) * 3 % 10, (28, 28))
    arrays = [array.astype(np.uint8) for array in (*train, *test)]
    header = {3: b"\0\0\x08\x03", 1: b"\0\0\x08\x01"}
    data = [header[a.ndim] + np.array(a.shape, ">i4").tobytes() + a.tobytes() for a in arrays]
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    return TinyMnist(train, test, dict(zip(names, data, strict=True)))


@pytest.fixture
def tiny_cifar(monkeypatch: pytest.MonkeyPatch) -> TinyCifar:
    tiny = make_cifar(monkeypatch, CIFAR10, 5, 2)
    monkeypatch.setattr(CIFAR10, "checksum", canonical("x", CIFAR10.classes, tiny.train, tiny.test).checksum)
    return tiny


@pytest.fixture
def tiny_cifar100(monkeypatch: pytest.MonkeyPatch) -> TinyCifar:
    return make_cifar(monkeypatch, CIFAR100, 2, 1)


def make_cifar(monkeypatch: pytest.MonkeyPatch, of: Cifar, train_count: int, test_count: int) -> TinyCifar:
    classes = len(of.classes)
    train = random_images(3, np.arange(train_count * classes) * 7 % classes, (3, 32, 32))
    test = random_images(4, np.arange(test_count * classes) * 3 % classes, (3, 32, 32))
    files = {}
    parts = [*zip(*(np.split(array, len(of.md5) - 1) for array in train), strict=True), test]
    for name, (images, labels) in zip(of.md5, parts, strict=True):
        numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
        data = pickled_array(images.reshape(len(images), -1), "numpy.core.multiarray")
        files[name] = b"\x80\x02}(U" + bytes([len(of.labels)]) + of.labels + numbers + b"U\x04data" + data + b"u."
    monkeypatch.setattr(of, "md5", {name: md5(data) for name, data in files.items()})
    monkeypatch.setattr(of, "per_class", {"train": train_count, "test": test_count})
    return TinyCifar(of, train, test, files)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="normbench")
    return caplog
