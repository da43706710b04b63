"""Running the cells of a plan through one of Hydra's launchers: on other machines, or by other engines on this one.

Results are on a disk that all machines share, so what became of a cell is read from its folder, whatever the launcher
says; repeating the command runs what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from normbench.errors import ConfigError
from normbench.runs import Run, is_finished
from normbench.sweep.plan import AGAIN, RUNNING, Item, Plan
from normbench.sweep.runner import Outcome, View, begin

if TYPE_CHECKING:
    from normbench.config.grid import Launch

SECONDS = 1.0  # between looks at the folders


def run_elsewhere(plan: Plan, view: View, launch: Launch) -> Outcome:
    """As `run_cells`. Raises ConfigError if the launcher itself failed before it started anything."""
    from normbench.experiment import forget, record_failure

    outcome, todo = begin(plan, view), plan.todo
    if not todo:
        return outcome
    for item in todo:
        if item.status == AGAIN and is_finished(item.cell.folder):
            forget(item.cell)
    begun, error = time.time(), "it was not run"
    with _watching(todo, view):
        try:
            launch([item.cell for item in todo])
        except Exception as cause:  # a worker was killed and took the launcher along, or a wrong setting
            if not any(_touched(item, begun) for item in todo):
                raise ConfigError(f"the launcher failed: {_first_line(cause)}") from cause
            error = f"its process died ({_first_line(cause)})"
    for item in todo:
        run = Run(item.cell.folder)
        if run.summary:
            outcome.ran += 1
            continue
        if run.status != "failed" and _touched(item, begun):
            record_failure(item.cell, error)
        outcome.failed[item.cell.name] = text = Run(item.cell.folder).error or error
        view.failed(item.cell, text)
    return outcome


def _touched(item: Item, since: float) -> bool:
    with suppress(OSError):
        return any(path.stat().st_mtime >= since for path in item.cell.folder.iterdir())
    return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


@contextmanager
def _watching(todo: list[Item], view: View) -> Iterator[None]:
    """Shows what happens in the folders, in a thread: a launcher says nothing before it is done."""
    ended, waiting = threading.Event(), [item.cell for item in todo]

    def look() -> None:
        for cell in list(waiting):
            run = Run(cell.folder)
            if run.summary:
                waiting.remove(cell)
                view.finished(run)
        view.tick([cell for cell in waiting if cell.folder.exists() and Run(cell.folder).status == RUNNING], 0)

    def watch() -> None:
        while not ended.wait(SECONDS):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
