"""`normbench status`: how the runs of a study are doing, from their folders. Imports neither torch nor Hydra."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from normbench.commands.console import make_table, out
from normbench.commands.report import study_of
from normbench.errors import UserError
from normbench.runs import FINISHED, Run, Study, last_step, load

ORDER = ("complete", "diverged", "unsupported", "running", "interrupted", "failed", "unreadable")
SECONDS = 1.0  # between looks
IDLE = 5  # looks at which nothing runs: then it is over
SHOWN = 20  # runs of each kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", type=Path, help="results/<study>; left out, the one changed last")
    parser.add_argument("--watch", action="store_true", help="again and again, until nothing runs (or Ctrl-C)")


def run(options: argparse.Namespace) -> int:
    """Print the status of a study; with `watch`, until nothing runs any more. Returns 0. Raises UserError."""
    folder = study_of(options.study)
    try:
        if options.watch:
            _watch(folder)
        else:
            out.print(_Status(load(folder)).overview()[0])
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    return 0


def _watch(folder: Path) -> None:
    with Live(Text(f"waiting for runs in {folder}"), console=out, refresh_per_second=2) as live:
        while not any(folder.glob("*/config.yaml")):  # the sweep in the other terminal is starting
            time.sleep(SECONDS)
        status, idle = _Status(load(folder)), 0
        while idle < IDLE:  # between two runs there is a moment when nothing runs
            overview, running = status.overview()
            idle = 0 if running else idle + 1
            live.update(overview)
            time.sleep(SECONDS)


class _Status:
    """Looks at a study again and again, and reads only once what cannot change."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.over: dict[Path, str] = {}
        self.unreadable: dict[Path, str] = {}  # what is wrong with a folder
        self.records: dict[Path, dict[str, Any]] = {}

    def overview(self) -> tuple[RenderableType, bool]:
        """How many runs have which status and which ones are not over; and whether one is running."""
        found: dict[str, list[Path]] = defaultdict(list)
        for run in self.study:
            if run.folder not in self.records:
                self.records[run.folder] = _record(run)
            found[self._status(run)].append(run.folder)
        counts = [f"{len(found[status])} {status}" for status in ORDER if found[status]]
        parts: list[RenderableType] = [Text(f"{self.study.folder}: {sum(map(len, found.values()))} runs")]
        parts.append(Text(", ".join(counts)))
        code = sorted({_code(record) for record in self.records.values() if record})
        if len(code) > 1:
            parts.append(Text(f"These runs were made by different code: {', '.join(code)}.", style="bold"))
        failed = sorted(found["failed"], key=_failed_at, reverse=True)
        tables: dict[str, list[tuple[str, str | None]]] = {
            "running": [(self._words(folder), self._progress(folder)) for folder in found["running"]],
            "interrupted": [(self._words(folder), self._progress(folder)) for folder in found["interrupted"]],
            "failed": [(self._words(folder), Run(folder).error) for folder in failed],
            "unreadable": [(folder.name, self.unreadable[folder]) for folder in found["unreadable"]],
        }
        for name, rows in tables.items():
            if rows:
                parts += [Text(""), make_table((name, ""), rows[:SHOWN], right=())]
            if len(rows) > SHOWN:
                parts.append(Text(f"... and {len(rows) - SHOWN} more"))
        if found["failed"] or found["interrupted"] or found["unreadable"]:
            advice = "Repeat the command that started them: it continues the interrupted, and does the others again."
            parts += [Text(""), Text(advice)]
        return Group(*parts), bool(found["running"])

    def _status(self, run: Run) -> str:
        if run.folder in self.over:
            return self.over[run.folder]
        try:
            status = run.status
            if status in FINISHED:
                run.check_seal(identity=run.record.get("identity"))
                self.over[run.folder] = status
        except (OSError, ValueError) as error:
            self.unreadable[run.folder] = str(error)
            return "unreadable"
        return status

    def _words(self, folder: Path) -> str:
        return " ".join(map(str, self.records[folder].get("overrides") or [folder.name]))

    def _progress(self, folder: Path) -> str:
        step, loss = last_step(folder)
        total = self.records[folder].get("total_steps")
        return f"step {step:,}" + (f" of {total:,}" if total else "") + (f", loss {loss:.4f}" if step else "")


def _record(run: Run) -> dict[str, Any]:
    try:
        return run.record
    except (OSError, ValueError):
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
