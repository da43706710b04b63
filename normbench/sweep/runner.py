"""Running the cells of a plan side by side, so that whatever happens to one of them, the others go on."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from normbench.config.run_config import RunConfig
from normbench.runs import Run, is_finished
from normbench.sweep import pool as workers
from normbench.sweep.plan import AGAIN, DONE, RESUMES, RUNNING, UNSUPPORTED, Item, Plan
from normbench.sweep.pool import Worker
from normbench.sweep.signals import requests_to_stop

TICK = 0.25  # seconds between looks at time-outs, at cells of other processes, and at the screen


class View(Protocol):
    """Whoever shows how a sweep is doing."""

    def finished(self, run: Run) -> None: ...
    def failed(self, cell: RunConfig, error: str) -> None: ...
    def warned(self, cell: RunConfig, text: str) -> None: ...
    def stopping(self, running: int) -> None: ...
    def tick(self, running: list[RunConfig], others: int) -> None: ...


@dataclass
class Outcome:
    """What became of the cells of a sweep."""

    ran: int = 0
    skipped: int = 0  # finished before
    elsewhere: int = 0  # finished meanwhile by another process
    unsupported: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # name -> error


def run_cells(plan: Plan, view: View) -> Outcome:
    """Run the cells of `plan`, `jobs` at a time, each in a process of its own.

    Raises: KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP: running cells have written their checkpoints, or, at the
        second signal, were killed.
    """
    outcome = begin(plan, view)
    if plan.todo:
        with requests_to_stop() as signals:
            _Loop(plan.todo, view, outcome, signals).run()
    return outcome


def begin(plan: Plan, view: View) -> Outcome:
    """What is known of a sweep before anything runs; cells that can't be run get their folders."""
    from normbench.experiment import record_unsupported

    for item in plan.having(UNSUPPORTED):
        record_unsupported(item.cell, item.reason)
        view.finished(Run(item.cell.folder))
    return Outcome(skipped=len(plan.having(DONE)), unsupported=len(plan.having(UNSUPPORTED)))


class _Loop:
    def __init__(self, todo: list[Item], view: View, outcome: Outcome, signals: list[int]) -> None:
        self.queue, self.view, self.outcome, self.signals = deque(todo), view, outcome, signals
        self.jobs = how_many(todo[0].cell)
        self.running: list[Worker] = []
        self.busy: list[RunConfig] = []  # another process is at them

    def run(self) -> None:
        try:
            while self.queue or self.running or self.busy:
                if self.signals:
                    self._stop()
                    raise KeyboardInterrupt
                while self.queue and len(self.running) < self.jobs:
                    item = self.queue.popleft()
                    if item.status == RUNNING:
                        self.busy.append(item.cell)
                    else:
                        self.running.append(
                            workers.start(item.cell, again=item.status == AGAIN and is_finished(item.cell.folder))
                        )
                self.view.tick([worker.cell for worker in self.running], len(self.busy))
                self._wait()
                self._look_at_busy()
        finally:
            for worker in self.running:  # after an error of ours, too: no orphans
                worker.kill("the sweep ended")

    def _wait(self) -> None:
        if self.running:
            workers.wait_for(self.running, TICK)
        else:
            time.sleep(TICK)
        for worker in list(self.running):
            worker.listen()
            limit = worker.cell.config["cell_timeout"]
            if not worker.over and limit is not None and time.monotonic() - worker.started > limit:
                worker.kill(f"it took longer than cell_timeout={limit:g} seconds")
            for text in worker.log:
                self.view.warned(worker.cell, text)
            worker.log.clear()
            if worker.over:
                self.running.remove(worker)
                self._conclude(worker)

    def _conclude(self, worker: Worker) -> None:
        from normbench.experiment import record_failure

        cell = worker.cell
        if worker.end == workers.BUSY:
            self.busy.append(cell)
        elif worker.end == workers.FINISHED and (run := Run(cell.folder)).summary:
            self.outcome.ran += 1
            self.view.finished(run)
        elif worker.end != workers.STOPPED:
            error = worker.error or "its folder was removed after it had finished"
            record_failure(cell, error, worker.trace)
            self.outcome.failed[cell.name] = error
            self.view.failed(cell, error)

    def _look_at_busy(self) -> None:
        """A cell that another process has left: it is finished, or ours to continue."""
        for cell in list(self.busy):
            run = Run(cell.folder)
            if run.status != RUNNING:
                self.busy.remove(cell)
                if run.summary:
                    self.outcome.elsewhere += 1
                    self.view.finished(run)
                else:
                    self.queue.append(Item(cell, RESUMES))

    def _stop(self) -> None:
        """Let running cells write their checkpoints. A second signal interrupts this."""
        self.view.stopping(len(self.running))
        for worker in self.running:
            worker.stop()
        while self.running:
            self._wait()


def how_many(cell: RunConfig) -> int:
    """How many runs side by side: `jobs`, or one per core (and thread), or on a GPU one."""
    jobs = cell.config["jobs"]
    if jobs != "auto":
        return jobs
    if cell.config["device"] != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // cell.config["threads"])
