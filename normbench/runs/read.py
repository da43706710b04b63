"""Reading: a run, and a study of many runs as data frames."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from normbench.errors import ConfigError
from normbench.runs.write import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

FINISHED = ("complete", "diverged", "unsupported")


class Unreadable(ValueError):
    """A file of a run is not what a run writes: empty, cut off, or made by something else."""


@dataclass(frozen=True)
class Run:
    """One run's folder, read only. `config` and `summary` are plain dictionaries; the tables are data frames."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything in `config.yaml`: choices, config, versions, machine. Raises Unreadable, OSError."""
        try:
            record = yaml.load((self.folder / "config.yaml").read_bytes(), Loader=_LOADER)
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

    @property
    def values(self) -> dict[str, Any]:
        """Every configured value by its name on the command line, and the choice of each group: what one filters by."""
        values = flat({k: v for k, v in self.config.items() if k not in self.choices})
        for group, choice in self.choices.items():
            values |= {group: choice, **flat(self.config.get(group) or {}, f"{group}.")}
        return values

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
    def steps(self) -> pd.DataFrame:
        """Training loss, one row per at most 1,000 intervals: the mean over the steps since the row before."""
        return self._table("steps")

    @property
    def epochs(self) -> pd.DataFrame:
        """Validation loss and accuracy at the scheduled evaluations."""
        return self._table("epochs")

    def measured(self, instrument: str) -> pd.DataFrame:
        """What an instrument measured: rows with a snapshot's position, layer and tensor. Empty if it did not look."""
        return self._table(f"measured/{instrument}")

    @property
    def instruments(self) -> list[str]:
        """The names of those that looked."""
        return sorted(path.stem for path in (self.folder / "measured").glob("*.csv"))

    def _part(self, name: str) -> dict[str, Any]:
        part = self.record.get(name)
        if not isinstance(part, dict):
            raise Unreadable(f"config.yaml has no {name}: it is cut off, or not that of a run")
        return part

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.folder / f"{name}.csv"
        if not path.exists() or not path.stat().st_size:  # an unsupported run has none
            return pd.DataFrame()
        with path.open("rb") as file:
            data = file.read()
        if not data.endswith(b"\n"):  # a kill leaves at most one torn line, the last
            data = data[: data.rfind(b"\n") + 1]
        exact = {} if pd.__version__ >= "3.1" else {"float_precision": "round_trip"}  # from 3.1 on it always is
        return pd.read_csv(io.BytesIO(data), **exact)


@dataclass(frozen=True)
class Study:
    """A folder of runs that answers one question.

    `runs` has one row per run: its folder, status, the choice of each group (`norm`, `model`, ...), every
    configured value (`batch_size`, `lr`, `model.hidden`, ...) and every number of its summary.
    `steps`, `epochs` and `measured("activations")` are the runs' tables on top of one another, with the run's name in
    column `run`; join them with `runs` on that column.

    Args:
        chosen: these runs of the folder alone; None stands for all.
    """

    folder: Path
    chosen: tuple[Run, ...] | None = None

    def __iter__(self) -> Iterator[Run]:
        if self.chosen is not None:
            yield from self.chosen
            return
        for path in sorted(self.folder.glob("*/config.yaml")):
            yield Run(path.parent)

    @cached_property
    def runs(self) -> pd.DataFrame:
        import pandas as pd

        rows = []
        for run in self:
            row = {"run": run.folder.name, "status": run.status, **run.values}
            row.update(flat({k: v for k, v in run.summary.items() if k != "status"}))
            row["error"] = run.error
            rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def steps(self) -> pd.DataFrame:
        return self._stacked(lambda run: run.steps)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        return self._stacked(lambda run: run.epochs)

    def measured(self, instrument: str) -> pd.DataFrame:
        return self._stacked(lambda run: run.measured(instrument))

    def _stacked(self, read: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        parts = [table.assign(run=run.folder.name) for run in self if len(table := read(run))]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def load(folder: str | Path) -> Study:
    """Open a study, `results/<study>`. Raises FileNotFoundError where there are no runs."""
    folder = Path(folder)
    if any(folder.glob("*/config.yaml")):
        return Study(folder)
    if (folder / "config.yaml").exists():
        raise FileNotFoundError(f"{folder} is a single run. Its study is the folder above: {folder.resolve().parent}")
    words = "holds no runs" if folder.is_dir() else "is no folder, so it holds no runs"
    raise FileNotFoundError(f"{folder} {words}. A study is a folder under results/, such as results/scratch.")


def is_finished(folder: Path) -> bool:
    """Is the run in `folder` over? Then it is not trained again. Raises ConfigError if another normbench wrote it."""
    run = Run(folder)
    try:
        version = run.summary.get("schema_version", SCHEMA_VERSION)
    except ValueError as error:
        raise ConfigError(f"{folder}/summary.json can't be read ({error}). Remove this folder.") from error
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{folder} was written by another version of normbench (files of schema {version}, this one has "
            f"{SCHEMA_VERSION}), whose defaults may differ. Choose another study=..., or remove this folder."
        )
    return bool(run.summary)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}. Lists stay values (as text, so that rows can be grouped by them)."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = str(value) if isinstance(value, list) else value
    return result


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


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none. Raises Unreadable, OSError."""
    try:
        found = json.loads(path.read_bytes())
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
