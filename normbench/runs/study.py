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

if TYPE_CHECKING:
    import pandas as pd

FINISHED = ("complete", "diverged", "unsupported")


@dataclass(frozen=True)
class Run:
    """One run's folder, read only. `config` and `summary` are plain dictionaries; the tables are data frames."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything in `config.yaml`: choices, config, versions, machine."""
        return yaml.load((self.folder / "config.yaml").read_bytes(), Loader=_LOADER) or {}

    @property
    def choices(self) -> dict[str, str]:
        """Which option of each group: {"norm": "batch", "model": "mlp", ...}."""
        return self.record["choices"]

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The numbers of `summary.json`; empty while the run is not over."""
        return _json(self.folder / "summary.json")

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
        return _json(self.folder / "error.json").get("error")

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
    """

    folder: Path

    def __iter__(self) -> Iterator[Run]:
        for path in sorted(self.folder.glob("*/config.yaml")):
            yield Run(path.parent)

    @cached_property
    def runs(self) -> pd.DataFrame:
        import pandas as pd

        rows = []
        for run in self:
            row: dict[str, Any] = {"run": run.folder.name, "status": run.status}
            row.update(flat({k: v for k, v in run.config.items() if k not in run.choices}))
            for group, choice in run.choices.items():
                row[group] = choice
                row.update(flat(run.config.get(group) or {}, f"{group}."))
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
    if not any(folder.glob("*/config.yaml")):
        raise FileNotFoundError(f"{folder} holds no runs. A study is a folder under results/, such as results/scratch.")
    return Study(folder)


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
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}


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
