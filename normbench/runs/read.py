"""One run's folder, read only. A folder may come from a stranger: nothing in it is executed, and reading is bounded."""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from normbench.errors import ConfigError
from normbench.files import open_file, read_bytes
from normbench.runs.files import SCHEMA_VERSION, Damaged, is_locked, sha256, summary_digest

if TYPE_CHECKING:
    import pandas as pd

FINISHED = ("complete", "diverged", "unsupported")
NUMBERS = ("steps", "samples", "test_accuracy", "validation_accuracy")  # in the summary of every complete run
# What else a report reads, where it is there, and of what type it is.
RECORD: dict[str, Any] = {"versions": dict | None, "machine": dict | None, "overrides": list | None}
SUMMARY: dict[str, Any] = dict.fromkeys(("dataset", "seconds", "measured", "perturbation"), dict | None)
SUMMARY |= {"parameters": int | None}
LONGEST = 2**20  # bytes of a YAML or JSON file that is read: a run writes some thousands
MOST_VALUES = 100_000  # in config.yaml, written out: aliases of aliases are few bytes and many values
DEEPEST = 100  # levels of values in one
SIZES, TABLES, EVERYTHING = range(3)  # how closely files are compared with what was written, see `Run.check_seal`

_OPTION = re.compile(r"(?!hydra)(?!.*_target_)[+~]{0,2}[a-z]\w*([./]\w+)*(=.*)?", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One run's folder. `config` and `summary` are plain dictionaries; the tables are data frames.

    Args:
        study: where several studies are read as one, the name of its own: part of its name, and a setting.
    """

    folder: Path
    study: str = ""

    @property
    def name(self) -> str:
        return f"{self.study}/{self.folder.name}" if self.study else self.folder.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything in `config.yaml`: choices, config, versions, machine. Raises Damaged."""
        try:
            text = _read(self.folder / "config.yaml")
        except (FileNotFoundError, NotADirectoryError):
            raise Damaged("config.yaml is gone") from None
        try:
            record = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: such as a date of February 30
            raise Damaged(f"config.yaml can't be read: {' '.join(str(error).split())}") from error
        if not record:
            raise Damaged("config.yaml is empty")
        if not isinstance(record, dict) or not _is_small(record):
            raise Damaged("config.yaml is not that of a run")
        return record

    @property
    def choices(self) -> dict[str, str]:
        """Which option of each group: {"norm": "batch", "model": "mlp", ...}. Raises Damaged."""
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
        return values | {"study": self.study} if self.study else values

    @property
    def words(self) -> list[str]:
        """The options that repeat it, as they are typed. Whatever else the folder says there, such as a `_target_` or
        a folder of files, is left out: somebody would execute it by pasting the command.
        """
        return [word for word in map(str, self.record.get("overrides") or []) if _OPTION.fullmatch(word)]

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The numbers of `summary.json`; empty while the run is not over. Raises Damaged."""
        summary = _json(self.folder / "summary.json")
        if summary and summary.get("status") not in FINISHED:
            raise Damaged(f"summary.json has status {summary.get('status')}, not {', '.join(FINISHED)}")
        seal = summary.get("seal")
        if isinstance(seal, dict) and "sha256" in seal and seal["sha256"] != summary_digest(summary):
            raise Damaged("summary.json is damaged: it was changed after it was written")
        return summary

    @property
    def status(self) -> str:
        """complete | diverged | unsupported | failed | running | interrupted."""
        if self.summary:
            return self.summary["status"]
        if (self.folder / "error.json").exists():
            return "failed"
        return "running" if is_locked(self.folder / ".lock") else "interrupted"

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
        except Damaged as error:  # that the run failed is known all the same
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
        """The learning curve: loss and accuracy on `curve_images` validation images."""
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

        try:
            data = read_bytes(self.folder / f"{name}.csv")
        except FileNotFoundError:  # an unsupported run has none
            return pd.DataFrame()
        data = data[: data.rfind(b"\n") + 1]  # a kill leaves at most one torn line, the last
        exact = {} if pd.__version__ >= "3.1" else {"float_precision": "round_trip"}  # from 3.1 on it always is
        return pd.read_csv(io.BytesIO(data), **exact) if data else pd.DataFrame()

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables that a reader wants to keep, under names of its own."""
        return {}

    def check(self) -> None:
        """Raises Damaged unless this is a run of this version of normbench, with all that tables and figures need."""
        if (version := self.record.get("schema_version")) != SCHEMA_VERSION:
            raise Damaged(f"schema_version is {version}, this normbench reads {SCHEMA_VERSION}")
        if "seed" not in self.config:
            raise Damaged("config.yaml has no seed: it is cut off, or not that of a run")
        for key in ("seed", "lr", "batch_size"):
            if key in self.config and not _is_number(self.config[key]):
                raise Damaged(f"config.yaml has no number {key} but {str(self.config[key])[:40]}")
        if missing := {"norm", "model", "dataset"} - set(self.choices):
            raise Damaged(f"config.yaml has no choice of {', '.join(sorted(missing))}")
        for key in NUMBERS if self.summary.get("status") == "complete" else ():
            if not _is_number(self.summary.get(key)):
                raise Damaged(f"summary.json has no number {key}, though the run is complete")
            if key.endswith("accuracy") and not 0 <= self.summary[key] <= 1:
                raise Damaged(f"summary.json has {key} {self.summary[key]}, which is not from 0 to 1")
        for file, part, kinds in (("config.yaml", self.record, RECORD), ("summary.json", self.summary, SUMMARY)):
            for key, kind in kinds.items():
                if not isinstance(part.get(key), kind):
                    raise Damaged(f"{file} has a {key} that is not that of a run")
        if self.summary.get("identity") and self.summary["identity"] != self.record.get("identity"):
            raise Damaged("config.yaml and summary.json are not of the same run")
        self.check_seal(TABLES)

    def check_seal(self, depth: int = SIZES, identity: Mapping[str, Any] | None = None) -> None:
        """Raises Damaged unless the files are those that were there when the run ended; a run that isn't over has no
        seal. A file that came later is of no concern, and neither are weights that were removed.

        This guards against accidents: whoever changes files on purpose can write a new seal.

        Args:
            depth: SIZES compares sizes; TABLES the SHA-256 of config and tables, too; EVERYTHING also of the weights.
            identity: what the run must be; None or {}: anything.
        """
        if identity and self.summary and self.summary.get("identity", identity) != identity:
            raise Damaged("summary.json is another run's")
        sealed = (self.summary.get("seal") or {}).get("files") or {}
        for name, written in sealed.items():
            path = self.folder / name
            try:
                about = path.stat()
                if not stat.S_ISREG(about.st_mode):
                    raise Damaged(f"{name} is not a file")
                if about.st_size != written["bytes"]:
                    raise Damaged(f"{name} has {about.st_size:,} bytes, not {written['bytes']:,} as when the run ended")
                hashed = depth == EVERYTHING or (depth == TABLES and name != "model.pt")
                if hashed and sha256(path) != written["sha256"]:
                    raise Damaged(f"{name} was changed after the run had ended")
            except OSError as error:
                if name != "model.pt":
                    raise Damaged(f"{name} can't be read: {error.strerror or error}") from error

    def _part(self, name: str) -> dict[str, Any]:
        part = self.record.get(name)
        if not isinstance(part, dict):
            raise Damaged(f"config.yaml has no {name}: it is cut off, or not that of a run")
        return part


def damage(run: Run, identity: Mapping[str, Any], depth: int = EVERYTHING) -> str:
    """Why `run`, which seems to be over, must be done again; "" if it is sound, or not over.

    Raises:
        ConfigError: another version of normbench wrote it.
    """
    try:
        version = run.summary.get("schema_version", SCHEMA_VERSION)
        run.check_seal(depth, identity)
    except Damaged as error:
        return str(error)
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{run.folder} was written by another version of normbench (files of schema {version}, this one has "
            f"{SCHEMA_VERSION}), whose defaults may differ. Choose another study=..., or remove this folder."
        )
    return ""


def is_finished(folder: Path, identity: Mapping[str, Any], depth: int = EVERYTHING) -> bool:
    """Is this run over, and are its files as they were written? Then it is not trained again.

    Args:
        depth: how closely its files are looked at, see `Run.check_seal`.

    Raises:
        ConfigError: another version of normbench wrote it.
    """
    run = Run(folder)
    return not damage(run, identity, depth) and bool(run.summary)


def last_step(folder: Path) -> tuple[int, float]:
    """Step and mean training loss in the last whole row of steps.csv; (0, nan) if there is none yet."""
    try:
        with open_file(folder / "steps.csv") as file:
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


def _read(path: Path) -> bytes:
    """A small file of a run folder, which anyone may have written. Raises Damaged, or FileNotFoundError."""
    try:
        return read_bytes(path, LONGEST)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise Damaged(f"{path.name} is a link to nowhere") from None
        raise
    except OSError as error:
        raise Damaged(f"{path.name} can't be read: {error.strerror or error}") from error


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is none. Raises Damaged."""
    try:
        found = json.loads(_read(path), parse_constant=_refuse)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except Damaged:
        raise
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8
        raise Damaged(f"{path.name} is cut off or damaged: {error}") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path.name} is not that of a run")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}, which is no number")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_small(tree: Any) -> bool:
    """Has it, written out, at most MOST_VALUES values? A list may contain itself, or others many times over."""
    waiting, seen = [tree], 0
    while waiting and seen <= MOST_VALUES:
        node = waiting.pop()
        seen += 1
        if isinstance(node, dict | list | tuple | set):
            waiting.extend(node.values() if isinstance(node, dict) else node)
    return not waiting


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml: ten times faster
    """Plain values. A merge key, `<<`, multiplies what it refers to while it is read: no run writes one.

    Nor does a run write deeply nested values, for which libyaml calls itself until its stack is full.
    """

    depth = 0

    def descend_resolver(self, node: Any, index: Any) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")
        super().descend_resolver(node, index)

    def ascend_resolver(self) -> None:
        self.depth -= 1
        super().ascend_resolver()

    def flatten_mapping(self, node: Any) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "a merge key is not that of a run", node.start_mark)
        super().flatten_mapping(node)
