"""A study as data frames: a row per run, and the runs' tables with what sets the runs apart beside every row."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.errors import UserError
from normbench.runs.files import Damaged
from normbench.runs.read import Run, flat

if TYPE_CHECKING:
    import pandas as pd

# What names, places or observes a run without changing what it computes: none of it sets runs apart.
NOT_SETTINGS = {"seed", "study", "question", "data_dir", "results_dir", "jobs", "save_model", "checkpoint_seconds"}
NOT_SETTINGS |= {"instruments", "evaluations", "log_every", "cell_timeout", "rerun", "shard", "curve_images"}
NOT_SETTINGS |= {"max_runs"}
OBSERVING = ("instruments.",)

# The settings that a reader asks for first, in this order; any other that varies follows.
MAIN: tuple[str, ...] = ("model", "dataset", "optimizer", "lr", "batch_size", "epochs", "max_steps", "max_samples")
MAIN += ("max_seconds",)
MAIN += ("schedule", "lr_scaling", "clip_norm", "accumulate", "weight_decay", "decay_norm_parameters", "momentum")
MAIN += ("model.activation", "model.init", "model.dropout", "device", "threads")

# Of `Study.runs`, after what was varied; and of `Study.all_columns` whatever the runs have.
FIRST = ("seed", "status", "validation_accuracy", "test_accuracy", "train_loss", "seconds.total")
ALWAYS = (*FIRST, "at_chance", "diverged_step", "reason")


@dataclass(frozen=True)
class Study:
    """A folder of runs that answers one question.

    `runs` has one row per run: its name, what was varied, seed, status, accuracies, seconds. `all_columns` has
    everything: the choice of each group (`norm`, `model`, ...), every configured value by its name on the command line
    (`batch_size`, `lr`, `model.hidden`, ...) and every number of the summary (`test_loss`, `seconds.training`, ...).
    `steps`, `epochs` and `measured("activations")` are the runs' tables on top of one another, with `run`, what was
    varied, and `seed` in front: figures are `groupby` and `mean` from here.

    A folder that can't be read has no row; `unreadable` says why (name -> reason).

    Args:
        chosen: these runs of the folder alone; None stands for all.
    """

    folder: Path
    chosen: tuple[Run, ...] | None = None

    def __iter__(self) -> Iterator[Run]:
        return self.folders()

    def folders(self) -> Iterator[Run]:
        """Every folder of a run, in order, be it one that can't be read."""
        if self.chosen is not None:
            yield from self.chosen
            return
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if any(os.path.lexists(path / name) for name in ("config.yaml", "summary.json")):
                yield Run(path)

    @cached_property
    def _read(self) -> tuple[dict[str, Run], dict[str, str]]:
        found, unreadable = {}, {}
        for run in self.folders():
            try:
                run.check()
                _ = run.values, run.status
                found[run.name] = run
            except Exception as error:  # whatever is wrong with one folder, the others are read
                name = "" if isinstance(error, Damaged) else f"{type(error).__name__}: "
                unreadable[run.name] = f"{name}{error}".splitlines()[0]
        return found, unreadable

    @property
    def members(self) -> dict[str, Run]:
        """The runs by name, in the order of the rows of `runs`."""
        return self._read[0]

    @property
    def unreadable(self) -> dict[str, str]:
        return self._read[1]

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Run -> what it computes with: choices and values, without what only names, places or observes a run.

        Where equally configured runs saw different data, the checksum is a setting: those are never compared.
        """
        found = {name: _settings(run) for name, run in self.members.items()}
        checksums = {name: (run.summary.get("dataset") or {}).get("checksum") for name, run in self.members.items()}
        seen: dict[Any, set[str]] = defaultdict(set)
        data = {
            name: tuple((k, v) for k, v in settings.items() if k.partition(".")[0] == "dataset")
            for name, settings in found.items()
        }
        for name, checksum in checksums.items():
            seen[data[name]] |= {checksum} if checksum else set()
        for name, settings in found.items():
            if len(seen[data[name]]) > 1:  # a run that is not over has not said which data it reads
                settings["dataset.checksum"] = (checksums[name] or "unknown")[:12]
        return found

    @cached_property
    def varied(self) -> tuple[str, ...]:
        """The settings that set runs apart, in the order in which a reader asks for them; `norm` is not among them."""
        rows = list(self.settings.values())
        return tuple(key for key in keys(rows) if key != "norm" and varies(key, rows))

    @cached_property
    def all_columns(self) -> pd.DataFrame:
        import pandas as pd

        rows = []
        for name, run in self.members.items():
            numbers = flat({k: v for k, v in run.summary.items() if k not in ("status", "identity", "seal")})
            said = {"status": run.status, "reason": run.reason, "error": run.error}
            rows.append({"run": name, **run.values, **numbers, **said})
        first = dict.fromkeys(("run", "norm", *self.varied, *ALWAYS))
        frame = pd.DataFrame(
            rows, columns=[*first, *dict.fromkeys(key for row in rows for key in row if key not in first)]
        )
        return frame.set_index(frame["run"].rename(None))

    @property
    def runs(self) -> pd.DataFrame:
        return self.all_columns[list(dict.fromkeys(("run", "norm", *self.varied, *FIRST)))]

    @cached_property
    def steps(self) -> pd.DataFrame:
        return self._stacked("steps")

    @cached_property
    def epochs(self) -> pd.DataFrame:
        return self._stacked("epochs")

    def measured(self, instrument: str) -> pd.DataFrame:
        return self._stacked(f"measured/{instrument}")

    def _stacked(self, name: str) -> pd.DataFrame:
        """The runs' tables on top of one another, behind columns that say which run a row is of."""
        import pandas as pd

        tables = {run: table for run, member in self.members.items() if len(table := member.table(name))}
        if not tables:
            return pd.DataFrame()
        stacked = pd.concat(tables, names=["run"]).copy()  # in one piece: pandas warns of a wide table in many
        stacked = stacked.reset_index("run").reset_index(drop=True)
        keys = [key for key in ("norm", *self.varied, "seed") if key not in stacked]
        return stacked[["run"]].join(self.all_columns[keys], on="run").join(stacked.drop(columns="run"))


def load(folder: str | Path) -> Study:
    """Open a study, `results/<study>`. Raises FileNotFoundError where there are no runs."""
    folder = Path(folder)
    if folder.is_dir() and any(Study(folder)):
        return Study(folder)
    if (folder / "config.yaml").exists():
        raise FileNotFoundError(f"{folder} is a single run. Its study is the folder above: {folder.resolve().parent}")
    words = "holds no runs" if folder.is_dir() else "is no folder, so it holds no runs"
    raise FileNotFoundError(f"{folder} {words}. A study is a folder under results/, such as results/scratch.")


def load_together(*folders: Path) -> Study:
    """Several studies as one, in which `study` is a setting: runs of two studies are never in one group.

    They are called by the names of their folders, with as many of those above as tell them apart.

    Raises: FileNotFoundError where there are no runs, UserError for a folder that is named twice.
    """
    runs = [list(load(folder)) for folder in folders]
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise UserError(f"{folders[-1]} is named twice. Name another study.")
    depth = 1
    while len(set(names := ["/".join(path.parts[-depth:]) for path in paths])) < len(paths):
        depth += 1
    found = [Run(run.folder, name) for name, of_study in zip(names, runs, strict=True) for run in of_study]
    return Study(folders[0], tuple(found))


def _settings(run: Run) -> dict[str, Any]:
    found = {k: v for k, v in run.values.items() if k not in NOT_SETTINGS and not k.startswith(OBSERVING)}
    found |= {"study": run.study} if run.study else {}
    if "device" in found:
        found["device"] = str(found["device"]).partition(":")[0]  # which of several GPUs makes no difference
    return found


def keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all settings: those that a reader asks for first, then the others as they come."""
    known = dict.fromkeys(key for row in rows for key in row)
    return [*(key for key in MAIN if key in known), *(key for key in known if key not in MAIN)]


def varies(key: str, rows: Iterable[Mapping[str, Any]]) -> bool:
    """More than one value; for an option inside a group, among runs with the same choice of that group."""
    group = key.partition(".")[0] if "." in key else ""
    values: dict[Any, set[str]] = defaultdict(set)
    for row in rows:
        values[row.get(group)].add(repr(row.get(key)))
    return any(len(options) > 1 for options in values.values())


def is_target(key: str, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a setting says what is built, or is a list of things to build, rather than how."""
    return key.endswith("_target_") or any("_target_" in str(row.get(key)) for row in rows)
