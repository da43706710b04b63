"""Arrays that cost much to make, kept on disk: memory-mapped, checked at every start, shared by all processes."""

import io
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs

from normbench.data.canonical import DataError, Source
from normbench.files import write_atomically

log = logging.getLogger("normbench")

FORMAT = 1  # of the cache; another number is rebuilt without a word


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

    def make() -> dict[str, Any]:
        try:
            source = decode()
        except OSError as error:
            raise DataError(f"{name}: {error}. Check {data_dir}, or choose another folder by data_dir.") from error
        if checksum not in (None, source.checksum):
            raise DataError(
                f"{name}: the decoded images are not the original ones (SHA-256 {source.checksum[:12]}..., "
                f"expected {str(checksum)[:12]}...).\nRemove the files they came from and type: normbench data {name}"
            )
        return vars(source) | {"stamp": stamp}

    wanted = {"stamp": stamp} if checksum is None else {"stamp": stamp, "checksum": checksum}
    values = kept(cache_folder(name, data_dir), wanted, make, rebuild)
    return Source(**{key: value for key, value in values.items() if key in Source.__dataclass_fields__})


def kept(
    folder: Path, wanted: dict[str, str], make: Callable[[], dict[str, Any]], rebuild: bool = False
) -> dict[str, Any]:
    """What `make` gives (arrays, words, numbers, by name), from `folder` if that holds it intact.

    `make` is called under a lock, so one process of many does the work. Where nothing can be written, all do.

    Args:
        wanted: some of the values; what was kept with others is made again.
        rebuild: make it even if it is there.
    """

    def look(level: int) -> dict[str, Any] | None:
        try:
            return None if rebuild else read(folder, wanted)
        except DamagedCacheError as error:
            log.log(level, "the cache %s is damaged (%s): building it again", folder, error)
            return None

    if (found := look(logging.WARNING)) is not None:
        return found
    with _alone(folder):
        if (found := look(logging.DEBUG)) is not None:
            return found  # built by another process while this one waited
        values = make()
        try:
            _write(folder, values)
        except OSError as error:
            log.warning("%s is made anew at every start: cannot write the cache (%s)", folder.name, error)
            return values
        return read(folder, wanted) or values  # mapped, so that its pages are shared


def read(folder: Path, wanted: dict[str, str]) -> dict[str, Any] | None:
    """What `kept` keeps in `folder`, arrays memory-mapped, or None if it is not there or another than wanted.

    Every byte is checked: zlib.crc32 takes 12 ms for MNIST's 47 MB, a fraction of what SHA-256 takes.

    Raises: DamagedCacheError
    """
    try:
        record = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        manifest = record["manifest"]
        if record["crc32"] != zlib.crc32(json.dumps(manifest).encode()):
            raise DamagedCacheError("manifest.json")
        sums = manifest.pop("crc32", {})
        if any(manifest.get(key) != value for key, value in {"format": FORMAT, **wanted}.items()):
            return None
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest.items()}
        for key, crc32 in sums.items():
            path = folder / f"{key}.npy"
            if zlib.crc32(np.memmap(path, np.uint8, mode="r").data) != crc32:
                raise DamagedCacheError(path.name)
            # "c" (copy on write): torch takes it without a copy and without a warning that it is read-only
            values[key] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and not (folder / "manifest.json").exists():
            return None
        raise DamagedCacheError(str(error)) from error
    return values


def _write(folder: Path, values: dict[str, Any]) -> None:
    manifest: dict[str, Any] = {"format": FORMAT, "crc32": {}}
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in values.items():
        if isinstance(value, np.ndarray):
            data = io.BytesIO()
            np.save(data, value, allow_pickle=False)
            write_atomically(folder / f"{key}.npy", data.getbuffer())
            manifest["crc32"][key] = zlib.crc32(data.getbuffer())
        else:
            manifest[key] = value
    record = {"manifest": manifest, "crc32": zlib.crc32(json.dumps(manifest).encode())}
    # Last: without it the arrays are not a cache.
    write_atomically(folder / "manifest.json", json.dumps(record, indent=1).encode())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache folder, or nothing where no lock can be had (read-only folder, no flock).

    Where no cache came of it, nothing is left. A process that waits for a lock file that was removed may then work
    beside one that made a new file: both write the same, each file as a whole.
    """
    lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
    made = [parent for parent in (folder.parent, folder.parent.parent) if not parent.exists()]
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
        if lock.is_locked and not folder.exists():
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # not empty
            for parent in made:
                parent.rmdir()
