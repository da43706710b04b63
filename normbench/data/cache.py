"""The cache of decoded images: memory-mapped .npy files, checked at every start, shared by all processes."""

import io
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs

from normbench.data.canonical import DataError, Source
from normbench.files import write_atomically

log = logging.getLogger("normbench")

FORMAT = 1  # of the cache; another number is rebuilt without a word
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "train_sums", "train_squares")


class DamagedCacheError(Exception):
    """The cache is there and is not what was written."""


def default_data_dir() -> Path:
    """$NORMBENCH_DATA, or the user's cache folder."""
    chosen = os.environ.get("NORMBENCH_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("normbench")


def cache_folder(name: str, data_dir: Path) -> Path:
    return data_dir / "normbench" / name


def cached(
    name: str,
    data_dir: Path,
    decode: Callable[[], Source],
    checksum: str | None = None,
    rebuild: bool = False,
    stamp: str = "",
) -> Source:
    """The source from the cache if that is intact, else from `decode`, cached for the next start.

    Args:
        decode: reads (or downloads) the files; called under a lock, so one process of many does the work.
        checksum: what the source must have, whatever `decode` read it from; None accepts any.
        rebuild: decode even if the cache is intact.
        stamp: what the files looked like; the cache of another stamp is rebuilt without a word.

    Raises: DataError from `decode`, if a file cannot be read, or if the checksum is another one.
    """
    if not rebuild and (source := _try(name, data_dir, checksum, stamp, logging.WARNING)):
        return source
    with alone(cache_folder(name, data_dir)):
        if not rebuild and (source := _try(name, data_dir, checksum, stamp, logging.DEBUG)):
            return source  # built by another process while this one waited
        try:
            source = decode()
        except OSError as error:
            raise DataError(f"{name}: {error}. Check {data_dir}, or choose another folder by data_dir.") from error
        if checksum not in (None, source.checksum):
            raise DataError(
                f"{name}: the decoded images are not the original ones (SHA-256 {source.checksum[:12]}..., "
                f"expected {str(checksum)[:12]}...).\nRemove the files they came from and type: normbench data {name}"
            )
        try:
            _write(source, cache_folder(name, data_dir), stamp)
        except OSError as error:
            log.warning("%s is decoded anew at every start: cannot write the cache (%s)", name, error)
            return source
    return _try(name, data_dir, checksum, stamp, logging.DEBUG) or source  # mapped, so that its pages are shared


def read(name: str, data_dir: Path, checksum: str | None = None, stamp: str = "") -> Source | None:
    """The cached source, memory-mapped, or None if there is none.

    Every byte is checked. zlib.crc32 takes 12 ms for MNIST's 47 MB, SHA-256 25 ms and several times that
    on processors without SHA instructions.

    Raises: DamagedCacheError
    """
    folder = cache_folder(name, data_dir)
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedCacheError(f"manifest.json: {error}") from error
    try:
        record = json.loads(text)
        manifest: dict[str, Any] = record["manifest"]
        if record["crc32"] != zlib.crc32(json.dumps(manifest).encode()):
            raise DamagedCacheError("manifest.json")
        if (manifest["format"], manifest.get("stamp", "")) != (FORMAT, stamp):
            return None
        if checksum not in (None, manifest["checksum"]):
            raise DamagedCacheError("checksum")
        arrays: dict[str, Any] = {key: _open(folder / f"{key}.npy", manifest["crc32"][key]) for key in ARRAYS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCacheError(str(error)) from error
    fields: dict[str, Any] = {key: manifest[key] for key in ("name", "checksum", "synthetic")}
    return Source(classes=tuple(manifest["classes"]), **fields, **arrays)


def _open(path: Path, crc32: int) -> np.ndarray:
    if zlib.crc32(np.memmap(path, np.uint8, mode="r").data) != crc32:
        raise DamagedCacheError(path.name)
    # "c" (copy on write): torch takes it without a copy and without a warning that it is read-only
    return np.load(path, mmap_mode="c", allow_pickle=False)


def _write(source: Source, folder: Path, stamp: str) -> None:
    crc32 = {}
    folder.mkdir(parents=True, exist_ok=True)
    for key in ARRAYS:
        data = io.BytesIO()
        np.save(data, getattr(source, key), allow_pickle=False)
        write_atomically(folder / f"{key}.npy", data.getbuffer())
        crc32[key] = zlib.crc32(data.getbuffer())
    fields = {key: getattr(source, key) for key in ("name", "checksum", "synthetic")}
    manifest = {"format": FORMAT, "stamp": stamp, **fields, "classes": list(source.classes), "crc32": crc32}
    record = {"manifest": manifest, "crc32": zlib.crc32(json.dumps(manifest).encode())}
    # Last: without it the arrays are not a cache.
    write_atomically(folder / "manifest.json", json.dumps(record, indent=1).encode())


def _try(name: str, data_dir: Path, checksum: str | None, stamp: str, level: int) -> Source | None:
    try:
        return read(name, data_dir, checksum, stamp)
    except DamagedCacheError as error:
        log.log(level, "the cache %s is damaged (%s): building it again", cache_folder(name, data_dir), error)
        return None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache folder, or nothing where no lock can be had (read-only folder, no flock)."""
    lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("waiting for another process that prepares %s", folder.name)
            lock.acquire()
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        lock.release()
