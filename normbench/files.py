"""Files that are either whole or not there; and reading files that anyone may have put there."""

import os
import stat
import uuid
from io import BufferedReader
from pathlib import Path

LARGEST = 2**28  # bytes of a file that is read as a whole: far above what a run writes


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` (temporary file, fsync, rename): a reader sees the old file or the new one, never a part.

    Processes that have the old file mapped keep it. After an exception nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_file(path: Path, most: int = LARGEST) -> BufferedReader:
    """Open a regular file of at most `most` bytes for reading: no pipe and no device, which might never end.

    Raises: OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for a writer
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise OSError(f"{path.name} is {kind}, not a file")
        if about.st_size > most:
            raise OSError(f"{path.name} has {about.st_size:,} bytes: at most {most:,} are read")
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """All of a file, as `open_file` opens it, without what is added to it meanwhile. Raises OSError."""
    with open_file(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)
