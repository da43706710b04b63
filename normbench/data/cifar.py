"""CIFAR-10 and CIFAR-100, from the official archive or from a folder tree of PNG files."""

import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from normbench.data.download import DownloadError, download
from normbench.data.image_folder import check_files, list_images, read_images
from normbench.data.progress import progress
from normbench.data.source import DataError, Source, canonical
from normbench.data.store import cached
from normbench.data.unpickle import load_arrays
from normbench.files import replacing


@dataclass(eq=False)
class Cifar:
    """A data set of 32x32 colour images.

    Args:
        title: as in messages.
        per_class: images in train and test.
        batches: the folder in the archive.
        md5: of the files in it; the last holds the test images.
        labels: their key in these files.
        checksum: of the canonical order, where it is known; without it a folder tree is taken on trust.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    per_class: dict[str, int]
    archive: str
    archive_md5: str
    batches: str
    md5: dict[str, str]
    labels: bytes
    checksum: str | None
    licence: str = "none stated (Krizhevsky 2009)"
    images: int = 60_000

    def load(self, data_dir: Path) -> Source:
        """From the cache, from `data_dir`, or downloaded to there."""
        return cached(self.name, data_dir, lambda: self._decode_or_download(data_dir), self.checksum)

    def found(self, data_dir: Path) -> Path | None:
        """The tree, the unpacked archive or the archive, whichever is there."""
        tree, batches, archive = data_dir / self.name, data_dir / self.batches, data_dir / self.archive
        there = {tree: (tree / "train").is_dir(), batches: batches.is_dir(), archive: archive.is_file()}
        return next((path for path, exists in there.items() if exists), None)

    def import_from(self, path: Path, data_dir: Path) -> Source:
        """Verify one of the three forms (or a folder that holds one), cache it and copy it to `data_dir`."""
        path = self.found(path) or path
        source = cached(self.name, data_dir, lambda: self._decode(path), self.checksum, rebuild=True)
        target = data_dir / (self.archive if path.is_file() else self.batches if self._batched(path) else self.name)
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

    @property
    def _import(self) -> str:
        return f"Type: normbench data {self.name} --from PATH"

    @property
    def _forms(self) -> str:
        return f"{self.archive}, {self.batches} or a folder that holds train/<class>/*.png and test/<class>/*.png"

    def _batched(self, path: Path) -> bool:
        return (path / [*self.md5][-1]).is_file()

    def _decode_or_download(self, data_dir: Path) -> Source:
        if path := self.found(data_dir):
            return self._decode(path)
        try:
            download(f"https://www.cs.toronto.edu/~kriz/{self.archive}", data_dir / self.archive, self.archive_md5)
        except DownloadError as error:
            raise DataError(
                f"{self.title} is not in {data_dir} and cannot be downloaded ({error}).\n"
                f"{self._import}, with {self._forms}."
            ) from error
        return self._decode(data_dir / self.archive)

    def _decode(self, path: Path) -> Source:
        if path.is_file():
            return self._decode_archive(path)
        if self._batched(path):
            return self._decode_batches(lambda name: (path / name).read_bytes(), path)
        if (path / "train").is_dir():
            return self._decode_tree(path)
        raise DataError(f"{self.title} is {self._forms}: {path} is none of them.\n{self._import}")

    def _decode_archive(self, path: Path) -> Source:
        def read(name: str) -> bytes:  # members are read, never unpacked: their paths can do no harm
            file = archive.extractfile(f"{self.batches}/{name}")
            return file.read() if file else b""

        try:
            with tarfile.open(path, "r:gz") as archive:
                return self._decode_batches(read, path)
        except (tarfile.TarError, EOFError, KeyError, zlib.error) as error:
            raise DataError(
                f"{path} is not {self.archive}, or damaged ({error}).\nGet it again from the source. {self._import}"
            ) from error

    def _decode_batches(self, read: Callable[[str], bytes], where: Path) -> Source:
        """Batches are pickled dicts; `data` is uint8 [10000, 3072], each row an image in the order C, H, W."""
        parts = []
        for name, md5 in self.md5.items():
            data = read(name)
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
                raise DataError(
                    f"{name} in {where} is damaged: its MD5 is not {md5}.\n"
                    f"Get {where} again from the source. {self._import}"
                )
            batch = load_arrays(io.BytesIO(data))
            parts.append((batch[b"data"].reshape(-1, 3, 32, 32), np.array(batch[self.labels])))
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True))
        return canonical(self.name, self.classes, (images, labels), parts[-1])

    def _decode_tree(self, tree: Path) -> Source:
        groups = {part: list_images(tree / part, self.classes, count) for part, count in self.per_class.items()}
        total = sum(self.per_class.values()) * len(self.classes)
        with progress(f"Decoding {self.title}, once", total, "images") as advance:
            train, test = (
                read_images(paths, (32, 32, 3), lambda image: image.convert("RGB"), advance)
                for paths in groups.values()
            )
        source = canonical(self.name, self.classes, train, test)
        if source.checksum != self.checksum:  # `cached` refuses it, but cannot say which image it is
            check_files([*groups["train"], *groups["test"]])
        return source
