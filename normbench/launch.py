"""Running many cells side by side, one process each at a time. No Hydra here."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Protocol

from normbench.cell import Cell, ConfigError
from normbench.runs import FINISHED, Locked, Run


class View(Protocol):
    """Whoever shows how a sweep is doing."""

    def finished(self, run: Run) -> None: ...
    def failed(self, cell: Cell, error: str) -> None: ...


@dataclass
class Outcome:
    """What became of the cells of a sweep."""

    ran: int = 0
    skipped: int = 0  # finished before
    unsupported: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # name -> error


@dataclass(frozen=True)
class Plan:
    """A sweep that was looked at.

    Args:
        todo: cells to run, seed by seed.
        unsupported: cells that can't be, each with the reason.
        finished: how many were finished before.
    """

    todo: list[Cell]
    unsupported: list[tuple[Cell, str]]
    finished: int


def examine(cells: Iterable[Cell]) -> Plan:
    """Check every cell before the first one starts. Writes nothing.

    Raises: ConfigError for the first cell that nobody can have meant.
    """
    from normbench.experiment import prepare_cell
    from normbench.norms import Unsupported

    todo, unsupported, finished = [], [], 0
    for cell in cells:
        if cell.finished:
            finished += 1
            continue
        try:
            prepare_cell(cell)
            todo.append(cell)
        except Unsupported as error:
            unsupported.append((cell, str(error)))
        except ConfigError as error:
            raise ConfigError(f"{error} (in {' '.join(cell.words)})") from error
    todo.sort(key=lambda cell: cell.config["seed"])  # stable: every scheme has results early
    return Plan(todo, unsupported, finished)


def run_cells(plan: Plan, view: View) -> Outcome:
    """Run the cells of `plan`, `jobs` at a time. A cell that fails is reported, and the others go on."""
    from normbench.experiment import record_unsupported

    todo = plan.todo
    outcome = Outcome(skipped=plan.finished, unsupported=len(plan.unsupported))
    for cell, reason in plan.unsupported:
        record_unsupported(cell, reason)
        view.finished(Run(cell.folder))
    if not todo:
        return outcome
    # Fork server: torch is imported once, and each worker forked from that, in milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["normbench.experiment"])
    workers = min(how_many(todo[0]), len(todo))
    running: dict[Future[None], Cell] = {}
    queue = list(reversed(todo))
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        try:
            while queue or running:
                while queue and len(running) < workers:
                    cell = queue.pop()
                    running[pool.submit(_work, cell)] = cell
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = running.pop(future)
                    error = future.exception()
                    if error is None:
                        outcome.ran += 1
                        view.finished(Run(cell.folder))
                    elif isinstance(error, BrokenProcessPool):
                        raise error
                    else:
                        outcome.failed[cell.name] = text = _worded(error)
                        view.failed(cell, text)
        except BrokenProcessPool:
            # A worker was killed, and the pool with it. Nothing is lost: what ran continues from its checkpoint.
            left = [cell for cell in [*running.values(), cell, *queue] if Run(cell.folder).status not in FINISHED]
            for cell in {cell.name: cell for cell in left}.values():
                outcome.failed[cell.name] = text = "a worker process was killed; repeat the command to continue"
                view.failed(cell, text)
        except KeyboardInterrupt:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return outcome


def how_many(cell: Cell) -> int:
    """How many runs side by side: `jobs`, or one per core (and thread), or on a GPU one."""
    jobs = cell.config["jobs"]
    if jobs != "auto":
        return jobs
    if cell.config["device"] != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // cell.config["threads"])


def _work(cell: Cell) -> None:
    from normbench.experiment import execute

    execute(cell)


def _worded(error: BaseException) -> str:
    if isinstance(error, Locked):
        return str(error)
    return f"{type(error).__name__}: {error}"
