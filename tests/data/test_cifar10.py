import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_files import flip_byte

from normbench.data import DataError, cifar, import_from
from normbench.data.cifar10 import CIFAR10
from normbench.data.download import DownloadError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def fail(*args: object) -> None:
        raise DownloadError("no network")

    monkeypatch.setattr(cifar, "download", fail)


def write(tiny, form: str, data_dir: Path) -> Path:
    """Put the data set where it is looked for; give the path."""
    names = {"tree": "cifar10", "batches": "cifar-10-batches-py", "archive": "cifar-10-python.tar.gz"}
    path = data_dir / names[form]
    data_dir.mkdir(exist_ok=True)
    getattr(tiny, f"write_{form}")(path)
    return path


FORMS = ["tree", "batches", "archive"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(tmp_path, tiny_cifar, form):
    path = write(tiny_cifar, form, tmp_path)
    assert CIFAR10.found(tmp_path) == path
    source = CIFAR10.load(tmp_path)
    assert source.checksum == CIFAR10.checksum  # `cached` accepts nothing else; that of the arrays themselves
    assert source.train_images.shape == (50, 3, 32, 32)
    first = tiny_cifar.train[0][tiny_cifar.train[1] == 3]
    assert {x.tobytes() for x in source.train_images[source.train_labels == 3]} == {x.tobytes() for x in first}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [False, True])
def test_imports(tmp_path, tiny_cifar, form, inside):
    path = write(tiny_cifar, form, tmp_path / "theirs")
    source = import_from("cifar10", tmp_path / "theirs" if inside else path, tmp_path / "ours")
    assert source.checksum == CIFAR10.checksum
    copied = tmp_path / "ours" / path.name
    assert copied.exists()
    shutil.rmtree(tmp_path / "ours" / "normbench")
    assert CIFAR10.load(tmp_path / "ours").checksum == CIFAR10.checksum  # the copy is complete


def test_importing_what_is_in_place_only_caches_it(tmp_path, tiny_cifar):
    path = write(tiny_cifar, "tree", tmp_path)
    assert import_from("cifar10", path, tmp_path).checksum == CIFAR10.checksum
    assert path.exists()


@pytest.mark.parametrize("form", FORMS)
def test_importing_cures_a_damaged_copy(tmp_path, tiny_cifar, form):
    ours, theirs = write(tiny_cifar, form, tmp_path / "ours"), write(tiny_cifar, form, tmp_path / "theirs")
    damaged = next(path for path in (ours, *sorted(ours.rglob("*"))) if path.is_file())
    flip_byte(damaged, damaged.stat().st_size // 2)
    with pytest.raises(DataError):
        CIFAR10.load(tmp_path / "ours")
    import_from("cifar10", theirs, tmp_path / "ours")
    shutil.rmtree(tmp_path / "ours" / "normbench")
    assert CIFAR10.load(tmp_path / "ours").checksum == CIFAR10.checksum


@pytest.mark.parametrize("where", [0.01, 0.2, 0.5, 0.8, 0.99])
def test_a_flipped_byte_in_an_image_is_named(tmp_path, tiny_cifar, where):
    tree = write(tiny_cifar, "tree", tmp_path)
    path = sorted((tree / "train" / "cat").iterdir())[2]
    flip_byte(path, int(where * path.stat().st_size))
    with pytest.raises(DataError, match=str(path)):
        CIFAR10.load(tmp_path)


def test_an_image_that_decodes_to_other_pixels_without_complaint_is_named(tmp_path, tiny_cifar):
    tree = write(tiny_cifar, "tree", tmp_path)
    one, other = sorted((tree / "train" / "cat").iterdir())[:2]
    shutil.copy(one, other)
    flip_byte(other, other.stat().st_size - 14)  # in the pixels' checksum, before the 12 bytes of the last chunk
    with Image.open(other) as changed, Image.open(one) as image:
        assert changed.tobytes() == image.tobytes()
    with pytest.raises(DataError, match=str(other)):
        CIFAR10.load(tmp_path)


def test_another_image_in_place_of_one_is_noticed(tmp_path, tiny_cifar):
    tree = write(tiny_cifar, "tree", tmp_path)
    one, other = sorted((tree / "train" / "cat").iterdir())[:2]
    shutil.copy(one, other)
    with pytest.raises(DataError, match="not the original ones"):
        CIFAR10.load(tmp_path)


def test_a_missing_image_is_noticed(tmp_path, tiny_cifar):
    tree = write(tiny_cifar, "tree", tmp_path)
    next((tree / "test" / "dog").iterdir()).unlink()
    with pytest.raises(DataError, match=r"test/dog must hold 2 PNG images: found 1"):
        CIFAR10.load(tmp_path)


@pytest.mark.parametrize("form", ["batches", "archive"])
def test_a_damaged_batch_is_named(tmp_path, tiny_cifar, form):
    data = bytearray(tiny_cifar.files["data_batch_2"])
    data[5000] ^= 1
    tiny_cifar.files["data_batch_2"] = bytes(data)
    write(tiny_cifar, form, tmp_path)
    with pytest.raises(DataError, match=r"data_batch_2 in .* is damaged"):
        CIFAR10.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip", "no archive"])
def test_a_damaged_archive_is_named(tmp_path, tiny_cifar, damage):
    path = write(tiny_cifar, "archive", tmp_path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50_000])
    elif damage == "flip":
        flip_byte(path, path.stat().st_size // 2)
    else:
        path.write_text("hello")
    with pytest.raises(DataError, match=str(path)) as refusal:
        CIFAR10.load(tmp_path)
    assert str(refusal.value).count("\n") < 2


def test_downloads_the_archive(tmp_path, tiny_cifar, monkeypatch):
    monkeypatch.setattr(cifar, "download", lambda url, path, md5: tiny_cifar.write_archive(path))
    assert CIFAR10.load(tmp_path).checksum == CIFAR10.checksum


def test_without_network_says_what_to_type(tmp_path):
    with pytest.raises(DataError, match="normbench data cifar10 --from PATH") as refusal:
        CIFAR10.load(tmp_path)
    assert "no network" in str(refusal.value)
    assert str(refusal.value).count("\n") < 2


def test_importing_something_else_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(DataError, match="is none of them"):
        import_from("cifar10", tmp_path / "theirs", tmp_path / "ours")
    assert np.array_equal(list((tmp_path / "theirs").iterdir()), [])
