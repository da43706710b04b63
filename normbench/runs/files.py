"""A run's files: its lock, its tables, which only ever grow, and how a change to a file is noticed."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from normbench.errors import UserError
from normbench.files import open_file, read_bytes, write_atomically

SCHEMA_VERSION = 6  # of the files in a run's folder and of the defaults that its identity leaves out


class Damaged(ValueError):
    """A file of a run is not what the run wrote: changed, cut off, gone, or another run's."""


class Locked(UserError):
    """Another process is writing this run."""


def seal(data: bytes) -> bytes:
    """`data` behind a line with its SHA-256, so that half a file or a flipped bit is noticed on reading."""
    return b"sha256 " + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def unseal(data: bytes, name: str) -> bytes:
    """The inverse of `seal`. Raises Damaged unless every byte is as it was written."""
    head, newline, rest = data.partition(b"\n")
    if not newline or head != b"sha256 " + hashlib.sha256(rest).hexdigest().encode():
        raise Damaged(f"{name} is damaged")
    return rest


def sha256(path: Path) -> str:
    """Of a file's bytes. Raises OSError."""
    with open_file(path, most=2**40) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_seals(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file that says what a run was and found: its config, tables and final weights."""
    paths = [folder / "config.yaml", *folder.glob("*.csv"), *folder.glob("measured/*.csv"), folder / "model.pt"]
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(paths)
        if path.is_file()
    }


def summary_digest(summary: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a summary but the digest itself, `summary["seal"]["sha256"]`."""
    rest = {key: value for key, value in summary["seal"].items() if key != "sha256"}
    return hashlib.sha256(json_text({**summary, "seal": rest})).hexdigest()


def json_text(value: Any) -> bytes:
    """The one way to write a value as JSON. Raises ValueError where there is a NaN."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, whatever stands there. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(NotADirectoryError):  # it would lie below a file
            path.unlink(missing_ok=True)


class Lock:
    """A lock on a file, which the kernel releases if this process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, seconds: float) -> None:
        """Raises Locked where another process has it all that time, OSError where the file can't be opened."""
        limit = time.monotonic() + seconds
        while True:
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(self.path.lstat().st_mode):
                    remove(self.path)  # a link or a folder was never anybody's lock
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.is_ours():  # the file may have been replaced between the two calls
                    return
            except BlockingIOError:
                if time.monotonic() > limit:
                    self.release()
                    raise Locked(f"{self.path.parent} is being written by another process") from None
            self.release()
            time.sleep(0.05)

    def is_ours(self) -> bool:
        """Is the file still the one that was locked? The folder may have been removed, and made anew by another."""
        try:
            return self._descriptor is not None and os.path.samestat(os.fstat(self._descriptor), self.path.lstat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also where a forked process still has the file open
            os.close(self._descriptor)
        self._descriptor = None


def is_locked(path: Path) -> bool:
    """Does another process, or this one, hold the lock `path`?"""
    try:
        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it can't be opened
        pass
    return False


class Table:
    """A CSV file that is appended to, and cut back to a known state when a run continues.

    Args:
        columns: names in order; a row may leave out some of them (written as empty cells), never add one.
        guard: called before every write; raises to forbid it.
    """

    def __init__(self, path: Path, columns: Sequence[str], guard: Callable[[], None] = lambda: None) -> None:
        self.path, self.columns, self.guard = path, tuple(columns), guard

    def start(self) -> None:
        """Begin an empty table (header only), whatever was there."""
        self.guard()
        write_atomically(self.path, self._header())

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if data := self._encode(rows):
            self.guard()
            with self.path.open("ab") as file:  # one write call: a kill leaves at most one torn line, at the end
                file.write(data)

    def state(self) -> dict[str, Any]:
        """What `restore` needs: length and SHA-256 of the table so far. The rows are on the disk before it returns."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "length": file.tell()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Cut the file back to `state`. Raises Damaged if its beginning is no longer what was written then."""
        self.guard()
        try:
            data = read_bytes(self.path)[: state["length"]]
        except OSError as error:
            raise Damaged(f"{self.path.name} can't be read: {error}") from error
        if len(data) != state["length"] or hashlib.sha256(data).hexdigest() != state["sha256"]:
            raise Damaged(f"{self.path.name} is damaged")
        if not data.startswith(self._header()):
            raise Damaged(f"{self.path.name} has the columns of another version of normbench")
        os.truncate(self.path, len(data))

    def _header(self) -> bytes:
        return self._encode([dict(zip(self.columns, self.columns, strict=True))])

    def _encode(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        for row in rows:
            if unknown := row.keys() - set(self.columns):
                raise ValueError(f"{self.path.name} has no column {', '.join(sorted(unknown))}")
            writer.writerow(row)  # floats as the shortest text that reads back the same
        return text.getvalue().encode()
