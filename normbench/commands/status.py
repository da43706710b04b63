"""`normbench status`: how the runs of a study are doing, told from their folders. Imports neither torch nor Hydra."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from normbench.commands.console import out, plain_table
from normbench.runs import FINISHED, Run, Study, last_step, load

ORDER = ("complete", "diverged", "unsupported", "running", "interrupted", "failed", "unreadable")
SECONDS = 1.0  # between looks
IDLE = 5  # looks at which nothing runs: then it is over
SHOWN = 20  # runs of each kind


@dataclass(frozen=True)
class Look:
    """A study at one moment: how many runs have which status, and those that are not over."""

    study: Path
    counts: dict[str, int]
    running: list[tuple[str, str]]  # run, how far
    interrupted: list[tuple[str, str]]
    failed: list[tuple[str, str]]  # run, error; the last first
    codes: list[str]  # versions and commits that made the runs


class Watcher:
    """Looks at a study again and again, and reads what cannot change only once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.over: dict[Path, str] = {}
        self.records: dict[Path, dict[str, Any]] = {}

    def look(self) -> Look:
        statuses: dict[Path, str] = {}
        for run in self.study:
            if (folder := run.folder) not in self.over:
                try:
                    statuses[folder] = run.status
                except (OSError, ValueError, KeyError):
                    statuses[folder] = "unreadable"
                if statuses[folder] in FINISHED:
                    self.over[folder] = statuses[folder]
            if folder not in self.records:
                self.records[folder] = _record(run)
        statuses |= self.over
        found = Counter(statuses.values())

        def having(status: str) -> list[Path]:
            return [folder for folder, own in statuses.items() if own == status]

        failed = sorted(having("failed"), key=_failed_at, reverse=True)
        return Look(
            self.study.folder,
            {status: found[status] for status in ORDER if found[status]},
            [(self._words(folder), self._far(folder)) for folder in having("running")],
            [(self._words(folder), self._far(folder)) for folder in having("interrupted")],
            [(self._words(folder), str(Run(folder).error)) for folder in failed],
            sorted({_code(record) for record in self.records.values() if record}),
        )

    def _words(self, folder: Path) -> str:
        return " ".join(map(str, self.records[folder].get("overrides") or [folder.name]))

    def _far(self, folder: Path) -> str:
        step, loss = last_step(folder)
        total = self.records[folder].get("total_steps")
        return f"step {step:,}" + (f" of {total:,}" if total else "") + (f", loss {loss:.4f}" if step else "")


def show(folder: Path, watch: bool) -> int:
    """Print the status of a study; with `watch`, until nothing runs any more. Raises FileNotFoundError."""
    if not watch:
        out.print(drawn(Watcher(load(folder)).look()))
        return 0
    idle = 0
    with Live(Text(f"waiting for runs in {folder}"), console=out, refresh_per_second=2) as live:
        while not any(folder.glob("*/config.yaml")):  # the sweep in the other terminal is starting
            time.sleep(SECONDS)
        watcher = Watcher(load(folder))
        while idle < IDLE:  # between two runs there is a moment when nothing runs
            look = watcher.look()
            idle = 0 if look.running else idle + 1
            live.update(drawn(look))
            time.sleep(SECONDS)
    return 0


def drawn(look: Look) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{look.study}: {sum(look.counts.values())} runs")]
    parts.append(Text(", ".join(f"{count} {status}" for status, count in look.counts.items())))
    if len(look.codes) > 1:
        parts.append(Text(f"These runs were made by different code: {', '.join(look.codes)}.", style="bold"))
    for title, rows in (("running", look.running), ("interrupted", look.interrupted), ("failed", look.failed)):
        if rows:
            table = plain_table()
            table.add_column(title, no_wrap=True)
            table.add_column("")
            for run, text in rows[:SHOWN]:
                table.add_row(Text(run), Text(text))
            parts += [Text(""), table]
            if len(rows) > SHOWN:
                parts.append(Text(f"... and {len(rows) - SHOWN} more"))
    if look.failed or look.interrupted:
        parts += [
            Text(""),
            Text("Repeat the command that started them: it continues the interrupted, and tries the failed again."),
        ]
    return Group(*parts)


def _record(run: Run) -> dict[str, Any]:
    try:
        return run.record
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _code(record: dict[str, Any]) -> str:
    versions = record.get("versions") or {}
    commit = str(record.get("git_commit") or "no commit")[:9]
    return f"normbench {versions.get('normbench')} ({commit}), torch {versions.get('torch')}"


def _failed_at(folder: Path) -> float:
    try:
        return (folder / "error.json").stat().st_mtime
    except OSError:
        return 0.0
