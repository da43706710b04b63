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

from normbench.commands.arguments import add_study, study_of
from normbench.commands.console import make_table, out
from normbench.errors import UserError
from normbench.runs import FINISHED, Run, last_step, load

ORDER = ("complete", "diverged", "unsupported", "running", "interrupted", "failed", "unreadable")
SECONDS = 1.0  # between two looks
WAITING = 60  # looks for a study that is not there yet: the sweep in the other terminal is starting
IDLE = 5  # looks at which nothing runs: then it is over
SHOWN = 20  # runs of each kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study(parser)
    parser.add_argument("--watch", action="store_true", help="again and again, until nothing runs (or Ctrl-C)")


def run(options: argparse.Namespace) -> int:
    """Print the status of a study; with `watch`, until nothing runs any more. Returns 0. Raises UserError."""
    folder, known = study_of(options.study), dict[str, Run]()
    if not options.watch:
        out.print(_overview(folder, known)[0])
        return 0
    with Live(Text(f"waiting for runs in {folder}"), console=out, refresh_per_second=2) as live:
        waited = idle = 0
        while idle < IDLE:  # between two runs there is a moment when nothing runs
            if any(folder.glob("*/config.yaml")) or waited == WAITING:
                overview, running = _overview(folder, known)
                idle = 0 if running else idle + 1
                live.update(overview)
            waited += 1
            time.sleep(SECONDS)
    return 0


def _overview(folder: Path, known: dict[str, Run]) -> tuple[RenderableType, bool]:
    """How many runs have which status and which ones are not over; and whether one is running. Raises UserError.

    Args:
        known: runs by name whose config.yaml is read once, at whichever look.
    """
    found: dict[str, list[Run]] = defaultdict(list)
    wrong: dict[str, str] = {}
    try:
        for run in load(folder):
            known.setdefault(run.name, run)
            found[_status(run, wrong)].append(run)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    counts = [f"{len(found[status])} {status}" for status in ORDER if found[status]]
    parts: list[RenderableType] = [Text(f"{folder}: {sum(map(len, found.values()))} runs"), Text(", ".join(counts))]
    code = sorted({_code(record) for record in map(_record, known.values()) if record})
    if len(code) > 1:
        parts.append(Text(f"These runs were made by different code: {', '.join(code)}.", style="bold"))
    failed = sorted(found["failed"], key=_failed_at, reverse=True)
    for name in ("running", "interrupted", "failed", "unreadable"):
        runs = failed if name == "failed" else found[name]
        rows = [(_words(known[run.name]), wrong.get(run.name) or run.error or _progress(run)) for run in runs[:SHOWN]]
        if rows:
            parts += [Text(""), make_table((name, ""), rows, right=())]
        if len(runs) > SHOWN:
            parts.append(Text(f"... and {len(runs) - SHOWN} more"))
    if found["failed"] or found["interrupted"] or found["unreadable"]:
        advice = "Repeat the command that started them: it continues the interrupted, and does the others again."
        parts += [Text(""), Text(advice)]
    return Group(*parts), bool(found["running"])


def _status(run: Run, wrong: dict[str, str]) -> str:
    """Args: wrong: gets what is wrong with the run's folder."""
    try:
        if (status := run.status) in FINISHED:
            run.check_seal(identity=run.record.get("identity"))
    except (OSError, ValueError) as error:
        wrong[run.name] = str(error)
        return "unreadable"
    return status


def _record(run: Run) -> dict[str, Any]:
    try:
        return run.record
    except (OSError, ValueError):
        return {}


def _words(run: Run) -> str:
    return " ".join(run.words if _record(run) else []) or run.name


def _progress(run: Run) -> str:
    (step, loss), total = last_step(run.folder), _record(run).get("total_steps")
    return f"step {step:,}" + (f" of {total:,}" if total else "") + (f", loss {loss:.4f}" if step else "")


def _code(record: dict[str, Any]) -> str:
    versions = record.get("versions") or {}
    commit = str(record.get("git_commit") or "no commit")[:9]
    return f"normbench {versions.get('normbench')} ({commit}), torch {versions.get('torch')}"


def _failed_at(run: Run) -> float:
    try:
        return (run.folder / "error.json").stat().st_mtime
    except OSError:
        return 0.0
