import numpy as np
import pytest
from tiny_files import flip_byte

from normbench.data import DataError, cifar, import_from
from normbench.data.cifar10 import CIFAR10
from normbench.data.cifar100 import CIFAR100


@pytest.mark.parametrize("form", ["tree", "batches", "archive"])
def test_every_form_gives_the_same_images(tmp_path, tiny_cifar100, form):
    theirs = tmp_path / "theirs"
    getattr(tiny_cifar100, f"write_{form}")(theirs)
    source = import_from("cifar100", theirs, tmp_path)
    assert (source.name, source.train_images.shape) == ("cifar100", (200, 3, 32, 32))
    images, labels = tiny_cifar100.train
    assert {x.tobytes() for x in source.train_images[source.train_labels == 42]} == {
        x.tobytes() for x in images[labels == 42]
    }
    assert CIFAR100.found(tmp_path) is not None
    assert CIFAR100.load(tmp_path).checksum == source.checksum


@pytest.mark.parametrize(("form", "file"), [("batches", "cifar-100-python/train"), ("tree", "cifar100/test/bee/1.png")])
def test_a_flipped_byte_is_named(tmp_path, tiny_cifar100, form, file):
    getattr(tiny_cifar100, f"write_{form}")(tmp_path / file.split("/")[0])
    path = tmp_path / file if (tmp_path / file).exists() else next((tmp_path / file).parent.iterdir())
    flip_byte(path, path.stat().st_size - 14)
    with pytest.raises(DataError, match=f"{path.name} .*is damaged"):
        CIFAR100.load(tmp_path)


def test_downloads(tmp_path, tiny_cifar100, monkeypatch):
    monkeypatch.setattr(cifar, "download", lambda url, path, md5: tiny_cifar100.write_archive(path))
    assert np.bincount(CIFAR100.load(tmp_path).test_labels).tolist() == [1] * 100


def test_the_constants_are_torchvisions():
    from torchvision.datasets import CIFAR10 as THEIRS10
    from torchvision.datasets import CIFAR100 as THEIRS100

    for ours, theirs in ((CIFAR10, THEIRS10), (CIFAR100, THEIRS100)):
        assert dict(theirs.train_list + theirs.test_list) == ours.md5
        assert (theirs.base_folder, theirs.tgz_md5) == (ours.batches, ours.archive_md5)
        assert theirs.url.rsplit("/", 1)[1] == ours.archive
    assert len(set(CIFAR100.classes)) == 100
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)
