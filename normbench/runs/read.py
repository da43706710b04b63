"""One run's folder, read only. A folder may come from a stranger: nothing in it is executed, and reading is bounded."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from normbench.errors import ConfigError
from normbench.runs.files import digests
from normbench.runs.write import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

FINISHED = ("complete", "diverged", "unsupported")
LARGEST = 2**30  # bytes of a file that is read: far above what a run writes
NUMBERS = ("steps", "samples", "test_accuracy", "validation_accuracy")  # in the summary of every complete run


class Unreadable(ValueError):
    """A file of a run is not what a run writes: empty, cut off, or made by something else."""


@dataclass(frozen=True)
class Run:
    """One run's folder. `config` and `summary` are plain dictionaries; the tables are data frames."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything in `config.yaml`: choices, config, versions, machine. Raises Unreadable, OSError."""
        try:
            record = yaml.load(read_bytes(self.folder / "config.yaml"), Loader=_LOADER)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: such as a date of February 30
            raise Unreadable(f"config.yaml can't be read: {' '.join(str(error).split())}") from error
        if not record:
            raise Unreadable("config.yaml is empty")
        if not isinstance(record, dict):
            raise Unreadable("config.yaml is not that of a run")
        return record

    @property
    def choices(self) -> dict[str, str]:
        """Which option of each group: {"norm": "batch", "model": "mlp", ...}. Raises Unreadable, OSError."""
        return self._part("choices")

    @property
    def config(self) -> dict[str, Any]:
        return self._part("config")

    @cached_property
    def values(self) -> dict[str, Any]:
        """The choice of each group and every configured value by its name on the command line. Plain values alone:
        numbers, text, lists as text. A `_target_` is text like any other here, and nothing follows it.
        """
        values = flat({key: value for key, value in self.config.items() if key not in self.choices})
        for group, choice in self.choices.items():
            values |= {group: choice, **flat(self.config.get(group) or {}, f"{group}.")}
        return values

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The numbers of `summary.json`; empty while the run is not over. Raises Unreadable, OSError."""
        summary = _json(self.folder / "summary.json")
        if summary and summary.get("status") not in FINISHED:
            raise Unreadable(f"summary.json has status {summary.get('status')}, not {', '.join(FINISHED)}")
        return summary

    @property
    def status(self) -> str:
        """complete | diverged | unsupported | failed | running | interrupted."""
        if self.summary:
            return self.summary["status"]
        if (self.folder / "error.json").exists():
            return "failed"
        return "running" if _is_locked(self.folder / ".lock") else "interrupted"

    @property
    def error(self) -> str | None:
        """What went wrong, in a line; None if nothing did."""
        return self._failure.get("error")

    @property
    def traceback(self) -> str:
        """Where it went wrong; empty if nothing did."""
        return str(self._failure.get("traceback") or "")

    @cached_property
    def _failure(self) -> dict[str, Any]:
        try:
            return _json(self.folder / "error.json")
        except Unreadable as error:  # that the run failed is known all the same
            return {"error": str(error)}

    @property
    def reason(self) -> str:
        """Why the run has no result, in its own words; empty for one that has."""
        if self.status == "diverged":
            return f"loss no longer finite at step {self.summary.get('diverged_step')}"
        if self.status == "unsupported":
            return str(self.summary.get("reason") or "no reason given")
        return str(self.error or "no message") if self.status == "failed" else ""

    @property
    def steps(self) -> pd.DataFrame:
        """Training loss, one row per at most 1,000 intervals: the mean over the steps since the row before."""
        return self.table("steps")

    @property
    def epochs(self) -> pd.DataFrame:
        """Validation loss and accuracy at the scheduled evaluations."""
        return self.table("epochs")

    def measured(self, instrument: str) -> pd.DataFrame:
        """What an instrument measured: rows with a snapshot's position, layer and tensor. Empty if it was not on."""
        return self.table(f"measured/{instrument}")

    @property
    def instruments(self) -> list[str]:
        """The names of those that were on."""
        return sorted(path.stem for path in (self.folder / "measured").glob("*.csv"))

    def table(self, name: str) -> pd.DataFrame:
        """`steps`, `epochs` or `measured/<instrument>`; empty where there is no file. Raises ValueError, OSError."""
        import pandas as pd

        path = self.folder / f"{name}.csv"
        if not path.exists() or not path.stat().st_size:  # an unsupported run has none
            return pd.DataFrame()
        data = read_bytes(path)
        if not data.endswith(b"\n"):  # a kill leaves at most one torn line, the last
            data = data[: data.rfind(b"\n") + 1]
        exact = {} if pd.__version__ >= "3.1" else {"float_precision": "round_trip"}  # from 3.1 on it always is
        return pd.read_csv(io.BytesIO(data), **exact)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables that a reader wants to keep, under names of its own."""
        return {}

    def check(self) -> None:
        """Raises Unreadable or OSError unless this is a run of this version of normbench, with all that it needs."""
        if (version := self.record.get("schema_version")) != SCHEMA_VERSION:
            raise Unreadable(f"schema_version is {version}, this normbench reads {SCHEMA_VERSION}")
        if "seed" not in self.config:
            raise Unreadable("config.yaml has no seed: it is cut off, or not that of a run")
        if missing := {"norm", "model", "dataset"} - set(self.choices):
            raise Unreadable(f"config.yaml has no choice of {', '.join(sorted(missing))}")
        for key in NUMBERS if self.summary.get("status") == "complete" else ():
            if not isinstance(self.summary.get(key), int | float):
                raise Unreadable(f"summary.json has no number {key}, though the run is complete")

    def altered(self) -> list[str]:
        """The files that are no longer what they were when the run ended, by the seal in its summary."""
        sealed = self.summary.get("seal") or {}
        found = digests(self.folder) if sealed else {}  # not those that are gone: people remove weights
        return [name for name in found if name in sealed and found[name] != sealed[name]]

    def _part(self, name: str) -> dict[str, Any]:
        part = self.record.get(name)
        if not isinstance(part, dict):
            raise Unreadable(f"config.yaml has no {name}: it is cut off, or not that of a run")
        return part


def is_finished(folder: Path) -> bool:
    """Is the run in `folder` over? Then it is not trained again.

    Raises:
        ConfigError: another version of normbench wrote it, or a file of it was changed after it was over.
    """
    run = Run(folder)
    try:
        version, altered = run.summary.get("schema_version", SCHEMA_VERSION), run.altered()
    except ValueError as error:
        raise ConfigError(f"{folder}/summary.json can't be read ({error}). Remove this folder.") from error
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{folder} was written by another version of normbench (files of schema {version}, this one has "
            f"{SCHEMA_VERSION}), whose defaults may differ. Choose another study=..., or remove this folder."
        )
    if altered:
        raise ConfigError(
            f"a finished run's files must be as they were written: in {folder}, {', '.join(altered)} was changed. "
            "Remove this folder, and repeat the command to run it again."
        )
    return bool(run.summary)


def last_step(folder: Path) -> tuple[int, float]:
    """Step and mean training loss in the last whole row of steps.csv; (0, nan) if there is none yet."""
    try:
        with (folder / "steps.csv").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 400))  # a row has some 60 bytes
            row = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2].decode().split(",")
        return int(row[0]), float(row[-1])
    except (OSError, ValueError):  # no file, or its header alone
        return 0, math.nan


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}. Lists stay values (as text, so that rows can be grouped by them)."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return result


def read_bytes(path: Path) -> bytes:
    """A file of a run folder, which anyone may have written. Every file is read here. Raises Unreadable, OSError."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Unreadable(f"{path.name} has more than {LARGEST:,} bytes: it is not that of a run")
    return data


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none. Raises Unreadable, OSError."""
    try:
        found = json.loads(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:  # neither JSON nor UTF-8
        raise Unreadable(f"{path.name} is cut off or damaged: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable(f"{path.name} is not that of a run")
    return found


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML has it: ten times faster
