"""Running a plan through one of Hydra's launchers: on other machines, or by other engines on this one.

Results are on a disk that all machines share, so what became of a run is read from its folder, whatever the launcher
says; repeating the command runs what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError
from normbench.runs import Run, is_finished
from normbench.sweep.plan import AGAIN, RUNNING, Plan
from normbench.sweep.runner import Outcome, View, begin

if TYPE_CHECKING:
    from normbench.config.grid import Launch

SECONDS = 1.0  # between looks at the folders


def run_through_launcher(plan: Plan, view: View, launch: Launch) -> Outcome:
    """As `run_plan`. Raises ConfigError if the launcher itself failed before it started anything."""
    from normbench.experiment import forget, record_failure

    outcome, todo = begin(plan, view), [item.run_config for item in plan.todo]
    if not todo:
        return outcome
    for item in plan.todo:
        if item.status == AGAIN and is_finished(item.run_config.folder):
            forget(item.run_config)
    begun, error = time.time(), "it was not run"
    with _watch_folders(todo, view):
        try:
            launch(todo)
        except Exception as cause:  # a worker was killed and took the launcher along, or a wrong setting
            message = f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
            if not any(_was_written(run_config, begun) for run_config in todo):
                raise ConfigError(f"the launcher failed: {message}") from cause
            error = f"its process died ({message})"
    for run_config in todo:
        run = Run(run_config.folder)
        if run.summary:
            outcome.ran += 1
            continue
        if run.status != "failed" and _was_written(run_config, begun):
            record_failure(run_config, error)
        outcome.failed[run_config.name] = text = Run(run_config.folder).error or error
        view.failed(run_config, text)
    return outcome


def _was_written(run_config: RunConfig, since: float) -> bool:
    with suppress(OSError):
        return any(path.stat().st_mtime >= since for path in run_config.folder.iterdir())
    return False


@contextmanager
def _watch_folders(todo: list[RunConfig], view: View) -> Iterator[None]:
    """Shows what happens in the folders, in a thread: a launcher says nothing before it is done."""
    ended, waiting = threading.Event(), list(todo)

    def check() -> None:
        for run_config in list(waiting):
            run = Run(run_config.folder)
            if run.summary:
                waiting.remove(run_config)
                view.finished(run)
        view.update([one for one in waiting if one.folder.exists() and Run(one.folder).status == RUNNING], 0)

    def watch() -> None:
        while not ended.wait(SECONDS):
            check()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        check()
