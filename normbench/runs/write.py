"""The folder of one run while it is being written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from filelock import FileLock, Timeout

from normbench.files import write_atomically
from normbench.runs.files import Damaged, Table, digests, seal, unseal

SCHEMA_VERSION = 3  # of the files in a run's folder and of the defaults that its identity leaves out

# Of the numbers in a run's files; what is not named here has none.
UNITS = {"loss": "nat per image", "accuracy": "fraction of 1", "epoch": "passes over the training images",
         "train_seconds": "s", "seconds": "s", "lr": "per update"}  # fmt: skip
# Fields of every config.yaml, by their names from the start; null where whoever starts the run doesn't say.
#   data_checksum: SHA-256 of the data set in canonical order; executed: how the run was executed, such as in a stack.
FIELDS = {"units": UNITS, "data_checksum": None, "executed": None}

POSITION = ("step", "samples", "epoch", "train_seconds")  # every table starts with these: any can be an x axis


class Locked(Exception):
    """Another process is writing this run."""


class Unwritable(Exception):
    """The folder of results can't be written."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises Unwritable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unwritable(f"{path} can't be written: {error.strerror}. Choose another place: results_dir=...") from error


class RunFolder:
    """Writes `config.yaml`, the tables, `checkpoint`, and at the end `summary.json` or `error.json`.

    Used as a context manager: inside it, this process holds the folder's lock, which the kernel releases if it dies.

    Args:
        measured: the columns of each instrument's table, measured/<name>.csv.
        data_checksum: of the data that this run sees. It stands in a checkpoint, which other data make useless.

    Raises:
        Locked: another process holds the lock.
        Unwritable: the folder can't be made.
    """

    def __init__(
        self, path: Path, measured: Mapping[str, Sequence[str]] | None = None, data_checksum: str | None = None
    ) -> None:
        self.path, self.data_checksum = path, data_checksum
        self.steps = Table(path / "steps.csv", [*POSITION, "loss"], self._require_ours)
        losses = ("validation_loss", "validation_accuracy")
        self.epochs = Table(path / "epochs.csv", [*POSITION, *losses], self._require_ours)
        self.measured = {
            name: Table(path / "measured" / f"{name}.csv", [*POSITION, "layer", "tensor", *columns], self._require_ours)
            for name, columns in (measured or {}).items()
        }
        self._lock = FileLock(path / ".lock", thread_local=False)

    @property
    def tables(self) -> dict[str, Table]:
        measured = {f"measured/{name}": table for name, table in self.measured.items()}
        return {"steps": self.steps, "epochs": self.epochs, **measured}

    def __enter__(self) -> RunFolder:
        make_folder(self.path)
        try:
            self._lock.acquire(timeout=1, poll_interval=0.05)  # a reader that asks for the status holds it for a moment
        except Timeout:
            raise Locked(f"{self.path} is being written by another process") from None
        self._inode = (self.path / ".lock").stat().st_ino  # of a file that is open: no other gets this number
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()

    def _require_ours(self) -> None:
        """Called before every write. Raises Unwritable if the folder was removed: it may be another run's by now."""
        try:
            ours = (self.path / ".lock").stat().st_ino == self._inode
        except FileNotFoundError:
            ours = False
        if not ours:
            raise Unwritable(f"{self.path} was removed while it was being written. Repeat the command to start over.")

    def _write(self, name: str, data: bytes) -> None:
        self._require_ours()
        write_atomically(self.path / name, data)

    def clear(self) -> None:
        """Remove what an earlier attempt left, of which a finished run is one."""
        self._require_ours()
        for name in ("summary.json", "error.json", "checkpoint", "model.pt", "folded.pt", "folded.pt2", "folded.json"):
            (self.path / name).unlink(missing_ok=True)

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin from nothing: remove what an earlier attempt left, write `config`, empty the tables."""
        self.clear()
        record = {"schema_version": SCHEMA_VERSION, **FIELDS, "data_checksum": self.data_checksum, **config}
        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
        self._write("config.yaml", text.encode())
        if self.measured:
            make_folder(self.path / "measured")
        for table in self.tables.values():
            table.start()

    def write_checkpoint(self, data: bytes) -> None:
        """Save the run's state together with the state of its tables, in one file."""
        states = {name: table.state() for name, table in self.tables.items()}
        head = {"data_checksum": self.data_checksum, "tables": states}
        self._write("checkpoint", seal(json.dumps(head).encode() + b"\n" + data))

    def read_checkpoint(self) -> bytes | None:
        """The state saved last, with the tables cut back to it; None if there is none.

        Raises:
            Damaged: it is not what was saved, or the run has seen other data until then.
        """
        path = self.path / "checkpoint"
        if not path.exists():
            return None
        line, _, data = unseal(path.read_bytes(), "checkpoint").partition(b"\n")
        head = json.loads(line)
        if head.keys() != {"data_checksum", "tables"} or head["data_checksum"] != self.data_checksum:
            raise Damaged("checkpoint is of other data, or of another version of normbench")
        for name, state in head["tables"].items():
            self.tables[name].restore(state)
        (self.path / "error.json").unlink(missing_ok=True)
        return data

    def write_model(self, data: bytes) -> None:
        self._write("model.pt", data)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`, with the seal over the other files: from here on the run is over."""
        for table in self.tables.values():
            if table.path.exists():
                table.state()  # on the disk before the summary says that they are complete
        sealed = {"schema_version": SCHEMA_VERSION, **summary, "seal": digests(self.path)}
        text = json.dumps(sealed, indent=1, allow_nan=False)
        self._write("summary.json", text.encode())
        (self.path / "checkpoint").unlink(missing_ok=True)

    def fail(self, message: str, traceback: str) -> None:
        """Write `error.json`. The checkpoint stays: a repeated command continues from it."""
        self._write("error.json", json.dumps({"error": message, "traceback": traceback}).encode())


__all__ = ["POSITION", "SCHEMA_VERSION", "Damaged", "Locked", "RunFolder", "Unwritable"]
