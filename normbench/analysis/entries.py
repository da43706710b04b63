"""One run as the report sees it: read once, its settings in one flat dictionary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from normbench.runs import SCHEMA_VERSION, Run, Unreadable
from normbench.runs.read import flat

if TYPE_CHECKING:
    import pandas as pd

# What names, places or observes a run without changing what it computes.
NOT_SETTINGS = {"seed", "study", "question", "data_dir", "results_dir", "jobs", "save_model", "checkpoint_seconds"}
NOT_SETTINGS |= {"instruments", "evaluations", "log_every", "cell_timeout", "rerun", "shard"}
OBSERVING = ("instruments.", "model.probe", "model.snapshots")
# What a complete run has said of itself.
NUMBERS = ("steps", "samples", "test_accuracy", "validation_accuracy")


@dataclass(eq=False)
class Entry:
    """`settings` has the choice of each group and every configured value, but for what only names or places the run."""

    run: Run
    status: str
    settings: dict[str, Any]
    summary: dict[str, Any]
    scheme: str = ""  # named once all runs are known: options of a norm belong to its name only where they vary

    @property
    def name(self) -> str:
        return self.run.folder.name

    @property
    def seed(self) -> Any:
        return self.run.config.get("seed")

    @property
    def synthetic(self) -> bool:
        data = self.summary.get("dataset") or {}
        return bool(data.get("synthetic", self.settings.get("dataset") == "synthetic"))

    def table(self, name: str) -> pd.DataFrame:
        """`steps`, `epochs` or that of an instrument; empty where the file is missing or is no table."""
        import pandas as pd

        try:
            return getattr(self.run, name) if name in ("steps", "epochs") else self.run.measured(name)
        except (OSError, ValueError):  # pandas' own errors on unreadable text are ValueErrors
            return pd.DataFrame()

    @property
    def reason(self) -> str:
        """Why the run has no result, in its own words; empty for one that has."""
        if self.status == "diverged":
            return f"loss no longer finite at step {self.summary.get('diverged_step')}"
        if self.status == "unsupported":
            return str(self.summary.get("reason") or "no reason given")
        return str(self.run.error or "no message") if self.status == "failed" else ""


def read_run(run: Run) -> Entry:
    """Raises ValueError, KeyError, TypeError, AttributeError or OSError where there is no run to read."""
    if (version := run.record.get("schema_version")) != SCHEMA_VERSION:
        raise Unreadable(f"schema_version is {version}, this normbench reads {SCHEMA_VERSION}")
    if "seed" not in run.config:
        raise Unreadable("config.yaml has no seed: it is cut off, or not that of a run")
    if run.summary.get("status") == "complete":
        for key in NUMBERS:
            if not isinstance(run.summary.get(key), int | float):
                raise Unreadable(f"summary.json has no number {key}, though the run is complete")
    settings = flat({key: value for key, value in run.config.items() if key not in run.choices})
    for group, choice in run.choices.items():
        settings |= {group: choice, **flat(run.config.get(group) or {}, f"{group}.")}
    settings["norm"], settings["model"], settings["dataset"] = (run.choices[g] for g in ("norm", "model", "dataset"))
    settings.setdefault("norm.statistics", "ema")  # of runs from before there was a choice
    if "device" in settings:
        settings["device"] = str(settings["device"]).partition(":")[0]  # which of several GPUs makes no difference
    counting = {k: v for k, v in settings.items() if k not in NOT_SETTINGS and not k.startswith(OBSERVING)}
    return Entry(run, run.status, counting, run.summary)


def tell_data_apart(entries: Sequence[Entry]) -> None:
    """Make the checksum a setting where equally configured runs saw different data: those are never compared."""
    seen: dict[Any, set[str]] = defaultdict(set)
    configured = [tuple((k, v) for k, v in e.settings.items() if k.partition(".")[0] == "dataset") for e in entries]
    for key, entry in zip(configured, entries, strict=True):
        if checksum := (entry.summary.get("dataset") or {}).get("checksum"):
            seen[key].add(checksum)
    for key, entry in zip(configured, entries, strict=True):
        if len(seen[key]) > 1:  # a run that is not over has not said which data it reads
            entry.settings["dataset.checksum"] = (entry.summary.get("dataset") or {}).get("checksum", "unknown")[:12]
