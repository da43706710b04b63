import gzip

import pytest
from tiny_files import TinyMnist, flip_byte

from normbench.data import DataError, idx, import_from, mnist_wheel
from normbench.data.download import DownloadError
from normbench.data.fashion_mnist import FASHION_MNIST


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def fail(*args: object) -> None:
        raise DownloadError("no network")

    monkeypatch.setattr(idx, "download", fail)
    monkeypatch.setattr(mnist_wheel, "download_wheel", None)


def assert_complete(source, tiny):
    assert (source.name, source.train_images.shape) == ("fashion_mnist", (60, 1, 28, 28))
    assert {x.tobytes() for x in source.test_images[source.test_labels == 9]} == {
        x.tobytes() for x in tiny.test[0][tiny.test[1] == 9]
    }
    assert source.classes[9] == "Ankle boot"


def test_reads_and_imports_packed_files(tmp_path, tiny_fashion_mnist: TinyMnist):
    theirs = tmp_path / "theirs"
    tiny_fashion_mnist.write(theirs, packed=True)
    assert_complete(import_from("fashion_mnist", theirs, tmp_path), tiny_fashion_mnist)
    raw = tmp_path / "FashionMNIST" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(FASHION_MNIST.md5)
    assert FASHION_MNIST.found(tmp_path) == raw
    assert_complete(FASHION_MNIST.load(tmp_path), tiny_fashion_mnist)


def test_a_flipped_byte_is_named_and_plain_files_are_not_enough(tmp_path, tiny_fashion_mnist):
    raw = tmp_path / "FashionMNIST" / "raw"
    tiny_fashion_mnist.write(raw, packed=True)
    flip_byte(raw / "t10k-labels-idx1-ubyte.gz", 20)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz is damaged[^$]*normbench data fashion_mnist"):
        FASHION_MNIST.load(tmp_path)
    tiny_fashion_mnist.write(tmp_path / "plain")
    with pytest.raises(DataError, match=r"Fashion-MNIST needs train-images-idx3-ubyte.gz and "):
        import_from("fashion_mnist", tmp_path / "plain", tmp_path)


def test_downloads(tmp_path, tiny_fashion_mnist, monkeypatch):
    def download(url, path, md5):
        assert url.startswith("http://fashion-mnist.s3")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(tiny_fashion_mnist.files[path.stem], mtime=0))

    monkeypatch.setattr(idx, "download", download)
    assert_complete(FASHION_MNIST.load(tmp_path), tiny_fashion_mnist)


def test_without_network_says_what_to_type(tmp_path):
    with pytest.raises(DataError, match="normbench data fashion_mnist --from PATH, with a folder") as refusal:
        FASHION_MNIST.load(tmp_path)
    assert "no network" in str(refusal.value)
    assert str(refusal.value).count("\n") < 2


def test_the_constants_are_torchvisions():
    from torchvision.datasets import MNIST, FashionMNIST

    assert dict(FashionMNIST.resources) == FASHION_MNIST.md5 == FASHION_MNIST.mirror_md5
    assert (tuple(FashionMNIST.classes), tuple(FashionMNIST.mirrors)) == (FASHION_MNIST.classes, FASHION_MNIST.mirrors)
    from normbench.data.mnist import MNIST as OURS

    assert (dict(MNIST.resources), tuple(MNIST.mirrors)) == (OURS.mirror_md5, OURS.mirrors)
