"""CIFAR-10, from the official archive or from a folder tree of PNG files: one checksum for all of them."""

import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from normbench.data.atomic import replacing
from normbench.data.download import DownloadError, download
from normbench.data.image_folder import check_files, list_images, read_images
from normbench.data.progress import progress
from normbench.data.source import DataError, Source, canonical
from normbench.data.store import cached
from normbench.data.unpickle import load_arrays

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PER_CLASS = {"train": 5000, "test": 1000}
CHECKSUM = "f795c3bfc6e3e9f35ba602ebe479185a240d846d8e4cffda865cfe349adeb352"  # of the canonical order
IMAGES = 60_000
LICENCE = "none stated (Krizhevsky 2009)"
ARCHIVE = "cifar-10-python.tar.gz"
BATCHES = "cifar-10-batches-py"
MD5 = {  # of the files in the archive
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
FORMS = f"{ARCHIVE}, {BATCHES} or a folder that holds train/<class>/*.png and test/<class>/*.png"
IMPORT = "Type: normbench data cifar10 --from PATH"


def cifar10(data_dir: Path) -> Source:
    """CIFAR-10 object photographs: from the cache, from `data_dir`, or downloaded to there."""
    return cached("cifar10", data_dir, lambda: _decode_or_download(data_dir), CHECKSUM)


load = cifar10  # the name that every built-in data set has


def found(data_dir: Path) -> Path | None:
    """The tree, the unpacked archive or the archive, whichever is there."""
    tree, batches, archive = data_dir / "cifar10", data_dir / BATCHES, data_dir / ARCHIVE
    there = {tree: (tree / "train").is_dir(), batches: batches.is_dir(), archive: archive.is_file()}
    return next((path for path, exists in there.items() if exists), None)


def import_from(path: Path, data_dir: Path) -> Source:
    """Verify one of the three forms (or a folder that holds one), put it into the cache and copy it to `data_dir`."""
    path = found(path) or path
    source = cached("cifar10", data_dir, lambda: _decode(path), CHECKSUM, rebuild=True)
    target = data_dir / (ARCHIVE if path.is_file() else BATCHES if (path / "test_batch").is_file() else "cifar10")
    try:
        if path.resolve() == target.resolve():
            pass
        elif path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            with path.open("rb") as original, replacing(target) as copy:
                shutil.copyfileobj(original, copy)
    except OSError as error:
        raise DataError(f"cannot copy {path} to {target} ({error}). Choose another folder by data_dir.") from error
    return source


def _decode_or_download(data_dir: Path) -> Source:
    if path := found(data_dir):
        return _decode(path)
    from torchvision.datasets import CIFAR10  # late: it imports torch

    try:
        download(CIFAR10.url, data_dir / ARCHIVE, CIFAR10.tgz_md5)
    except DownloadError as error:
        raise DataError(
            f"CIFAR-10 is not in {data_dir} and cannot be downloaded ({error}).\n{IMPORT}, with {FORMS}."
        ) from error
    return _decode(data_dir / ARCHIVE)


def _decode(path: Path) -> Source:
    if path.is_file():
        return _decode_archive(path)
    if (path / "test_batch").is_file():
        return _decode_batches(lambda name: (path / name).read_bytes(), path)
    if (path / "train").is_dir():
        return _decode_tree(path)
    raise DataError(f"CIFAR-10 is {FORMS}: {path} is none of them.\n{IMPORT}")


def _decode_archive(path: Path) -> Source:
    def read(name: str) -> bytes:  # members are read, never unpacked: their paths can do no harm
        file = archive.extractfile(f"{BATCHES}/{name}")
        return file.read() if file else b""

    try:
        with tarfile.open(path, "r:gz") as archive:
            return _decode_batches(read, path)
    except (tarfile.TarError, EOFError, KeyError, zlib.error) as error:
        raise DataError(
            f"{path} is not {ARCHIVE}, or damaged ({error}).\nGet it again from the source. {IMPORT}"
        ) from error


def _decode_batches(read: Callable[[str], bytes], where: Path) -> Source:
    """Batches are pickled dicts; `data` is uint8 [10000, 3072], each row an image in the order C, H, W."""
    parts = []
    for name, md5 in MD5.items():
        data = read(name)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise DataError(
                f"{name} in {where} is damaged: its MD5 is not {md5}.\nGet {where} again from the source. {IMPORT}"
            )
        batch = load_arrays(io.BytesIO(data))
        parts.append((batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[b"labels"])))
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
    return canonical("cifar10", CLASSES, (images, labels), parts[-1])


def _decode_tree(tree: Path) -> Source:
    groups = {part: list_images(tree / part, CLASSES, count) for part, count in PER_CLASS.items()}
    total = sum(PER_CLASS.values()) * len(CLASSES)
    with progress("Decoding CIFAR-10, once", total, "images") as advance:
        train, test = (read_images(paths, (32, 32), advance) for paths in groups.values())
    source = canonical("cifar10", CLASSES, train, test)
    if source.checksum != CHECKSUM:  # `cached` refuses it, but cannot say which image it is
        check_files([*groups["train"], *groups["test"]])
    return source
