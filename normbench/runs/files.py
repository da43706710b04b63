"""A run's files: whole ones, replaced in one move, and tables, which only ever grow; how a change is noticed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normbench.files import write_atomically


class Damaged(Exception):
    """A file of a run is not what was written; the run has to start over."""


def seal(data: bytes) -> bytes:
    """`data` behind a line with its SHA-256, so that half a file or a flipped bit is noticed on reading."""
    return b"sha256 " + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def unseal(data: bytes, name: str) -> bytes:
    """The inverse of `seal`. Raises `Damaged` unless every byte is as it was written."""
    head, newline, rest = data.partition(b"\n")
    if not newline or head != b"sha256 " + hashlib.sha256(rest).hexdigest().encode():
        raise Damaged(f"{name} is damaged")
    return rest


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that says what a run was and found: its config, tables and final weights."""
    paths = [folder / "config.yaml", *folder.glob("*.csv"), *folder.glob("measured/*.csv"), folder / "model.pt"]
    found = {}
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        repr(float(value)) if isinstance(value, float) else str(value)
    )  # repr: the shortest text that reads back the same


class Table:
    """A CSV file that is appended to, and cut back to a known state when a run continues.

    Args:
        columns: names in order; a row may leave out some of them (written as empty cells), never add one.
        guard: called before every write; raises to forbid it.
    """

    def __init__(self, path: Path, columns: Sequence[str], guard: Callable[[], None] = lambda: None) -> None:
        self.path, self.columns, self.guard = path, tuple(columns), guard
        self._hash, self._length = hashlib.sha256(), 0

    def start(self) -> None:
        """Begin an empty table (header only), whatever was there."""
        self._hash, self._length = hashlib.sha256(), 0
        self.guard()
        write_atomically(self.path, b"")
        self._append(self._encode([dict(zip(self.columns, self.columns, strict=True))]))

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        data = self._encode(rows)
        if data:
            self._append(data)

    def state(self) -> dict[str, Any]:
        """What `restore` needs: length and SHA-256 of the table so far. The rows are on the disk before it returns."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        return {"length": self._length, "sha256": self._hash.hexdigest()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Cut the file back to `state`. Raises `Damaged` if its beginning is no longer what was written then."""
        self.guard()
        try:
            data = self.path.read_bytes()[: state["length"]]
        except FileNotFoundError:
            data = b""
        digest = hashlib.sha256(data)
        if len(data) != state["length"] or digest.hexdigest() != state["sha256"]:
            raise Damaged(f"{self.path.name} is damaged")
        os.truncate(self.path, len(data))
        self._hash, self._length = digest, len(data)

    def _encode(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            if unknown := row.keys() - set(self.columns):
                raise ValueError(f"{self.path.name} has no column {', '.join(sorted(unknown))}")
            writer.writerow([_cell(row.get(name)) for name in self.columns])
        return text.getvalue().encode()

    def _append(self, data: bytes) -> None:
        self.guard()
        with self.path.open("ab") as file:  # one write call: a kill leaves at most one torn line, at the end
            file.write(data)
        self._hash.update(data)
        self._length += len(data)
