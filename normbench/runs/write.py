"""The folder of one run while it is being written."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from normbench.errors import UserError
from normbench.files import read_bytes, write_atomically
from normbench.runs.files import (
    SCHEMA_VERSION,
    Damaged,
    Lock,
    Table,
    file_seals,
    json_text,
    remove,
    seal,
    summary_digest,
    unseal,
)
from normbench.runs.read import Run, damage

logger = logging.getLogger("normbench")

# Of the numbers in a run's files; what is not named here has none.
UNITS = {"loss": "nat per image", "accuracy": "fraction of 1", "epoch": "passes over the training images",
         "train_seconds": "s", "seconds": "s", "lr": "per update"}  # fmt: skip
# Fields of every config.yaml, by their names from the start; null where whoever starts the run doesn't say.
#   data_checksum: SHA-256 of the data set in canonical order; executed: how the run was executed, such as in a stack.
FIELDS = {"units": UNITS, "data_checksum": None, "executed": None}

POSITION = ("step", "samples", "epoch", "train_seconds")  # every table starts with these: any can be an x axis
ASIDE = ".damaged"  # beside the runs of a study: folders of runs that were done again
WRITTEN = ("summary.json", "error.json", "checkpoint", "model.pt", "folded.pt", "folded.pt2", "folded.json")


class Unwritable(UserError):
    """The folder of results can't be written."""


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises Unwritable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unwritable(f"{path} can't be written: {error.strerror}. Choose another place: results_dir=...") from error


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # libyaml: ten times faster
    """Writes out what stands in two places twice: a reader need not follow references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class RunFolder:
    """Writes `config.yaml`, the tables, `checkpoint`, and at the end `summary.json` or `error.json`.

    Used as a context manager: inside it, this process holds the folder's lock, which the kernel releases if it dies.
    A finished run that is not as it was written is set aside on entering, see `damage`: the folder is empty then.

    Args:
        measured: the columns of each instrument's table, measured/<name>.csv.
        data_checksum: of the data that this run sees. It stands in a checkpoint, which other data make useless.
        identity: what makes it this run and no other; {}: anything may be in the folder.

    Raises:
        Locked: another process holds the lock.
        Unwritable: the folder can't be made.
    """

    def __init__(
        self,
        path: Path,
        measured: Mapping[str, Sequence[str]] | None = None,
        data_checksum: str | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.data_checksum, self.identity = path, data_checksum, dict(identity or {})
        losses = ("validation_loss", "validation_accuracy")
        columns = {"steps": ["loss"], "epochs": losses}
        columns |= {f"measured/{name}": ["layer", "tensor", *own] for name, own in (measured or {}).items()}
        self.tables = {
            name: Table(path / f"{name}.csv", [*POSITION, *own], self._require_ours) for name, own in columns.items()
        }
        self.steps, self.epochs = self.tables["steps"], self.tables["epochs"]
        self.measured = {name: self.tables[f"measured/{name}"] for name in measured or {}}
        self._lock = Lock(path / ".lock")
        self._config = b""  # what config.yaml holds

    def __enter__(self) -> RunFolder:
        self._open()
        if self.identity and (why := damage(Run(self.path), self.identity)):
            self._set_aside(why)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()

    def _open(self) -> None:
        make_folder(self.path)
        try:
            self._lock.acquire(seconds=1)  # a reader that asks for the status holds it for a moment
        except OSError as error:
            raise Unwritable(f"{self._lock.path} can't be opened: {error.strerror}. Remove it.") from error

    def _set_aside(self, why: str) -> None:
        """Move the folder away, and go on in a new one, of which this process holds the lock."""
        aside = self.path.parent / ASIDE
        make_folder(aside)
        names = itertools.chain([self.path.name], (f"{self.path.name}-{n}" for n in itertools.count(2)))
        place = next(aside / name for name in names if not (aside / name).exists())
        try:
            self.path.rename(place)
        except OSError as error:
            raise Unwritable(f"{self.path} is damaged and can't be moved: {error.strerror}.") from error
        self._lock.release()
        logger.warning("%s: %s; its folder is kept as %s/%s, and the run is done again", self.path.name, why, ASIDE,
                       place.name)  # fmt: skip
        self._open()

    def _require_ours(self) -> None:
        """Called before every write. Raises Unwritable if the folder was removed: it may be another run's by now."""
        if not self._lock.is_ours():
            raise Unwritable(f"{self.path} was removed while it was being written. Repeat the command to start over.")

    def _write(self, name: str, data: bytes) -> None:
        self._require_ours()
        path = self.path / name
        if path.is_dir():  # which a file can't replace
            remove(path)
        write_atomically(path, data)

    def clear(self) -> None:
        """Remove what an earlier attempt left, of which a finished run is one."""
        self._require_ours()
        for name in (*WRITTEN, "measured", *self.tables):  # the summary first: without it the run is not over
            remove(self.path / (name if name in (*WRITTEN, "measured") else f"{name}.csv"))

    def start(self, config: Mapping[str, Any]) -> None:
        """Begin from nothing: remove what an earlier attempt left, write `config`, empty the tables."""
        self.clear()
        record = {"schema_version": SCHEMA_VERSION, **FIELDS, "data_checksum": self.data_checksum, **config}
        self._config = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True).encode()
        self._restore_config()
        if self.measured:
            make_folder(self.path / "measured")
        for table in self.tables.values():
            table.start()

    def write_checkpoint(self, data: bytes) -> None:
        """Save the run's state together with its configuration and the state of its tables, in one file."""
        states = {name: table.state() for name, table in self.tables.items()}
        head = {"identity": self.identity, "data_checksum": self.data_checksum, "tables": states,
                "config": self._config.decode()}  # fmt: skip
        self._write("checkpoint", seal(json_text(head) + b"\n" + data))

    def read_checkpoint(self) -> bytes | None:
        """The state saved last, with the tables cut back to it and its config.yaml; None if there is none.

        Raises:
            Damaged: it is not what was saved, another run's, or the run has seen other data until then.
        """
        try:
            found = read_bytes(self.path / "checkpoint", most=2**40)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"checkpoint can't be read: {error}") from error
        line, _, data = unseal(found, "checkpoint").partition(b"\n")
        head = json.loads(line)
        if head.keys() != {"identity", "data_checksum", "tables", "config"}:
            raise Damaged("checkpoint is of another version of normbench")
        if (head["identity"], head["data_checksum"]) != (self.identity, self.data_checksum):
            raise Damaged("checkpoint is of other data, or of another run")
        for name, state in head["tables"].items():
            self.tables[name].restore(state)
        self._config = head["config"].encode()
        self._restore_config()
        remove(self.path / "error.json")
        return data

    def _restore_config(self) -> None:
        """Write `config.yaml`, unless it is as it was: someone may have changed it."""
        with suppress(OSError):
            if read_bytes(self.path / "config.yaml") == self._config:
                return
        self._write("config.yaml", self._config)

    def write_model(self, data: bytes) -> None:
        self._write("model.pt", data)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`, with the seal over it and the other files: from here on the run is over."""
        self._restore_config()
        for table in self.tables.values():
            if table.path.exists():
                table.state()  # on the disk before the summary says that they are complete
        sealed: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "identity": self.identity, **summary}
        sealed["seal"] = {"files": file_seals(self.path)}
        sealed = json.loads(json.dumps(sealed, allow_nan=False))  # as it will be read
        sealed["seal"]["sha256"] = summary_digest(sealed)
        self._write("summary.json", json.dumps(sealed, indent=1).encode())
        remove(self.path / "checkpoint")

    def fail(self, message: str, traceback: str) -> None:
        """Write `error.json`. The checkpoint stays: a repeated command continues from it."""
        self._write("error.json", json.dumps({"error": message, "traceback": traceback}).encode())
