"""Running the runs of a plan side by side, so that whatever happens to one of them, the others go on."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from normbench.config.run_config import RunConfig
from normbench.runs import Run, is_finished, is_locked
from normbench.sweep import pool
from normbench.sweep.plan import AGAIN, DONE, RESUMES, RUNNING, UNSUPPORTED, Item, Plan
from normbench.sweep.pool import Report, Worker

TICK = 0.25  # seconds between looks at time-outs, at runs of other processes, and at the screen


class View(Protocol):
    """Whoever shows how a sweep is doing."""

    def finished(self, run: Run) -> None: ...
    def unsupported(self, run_configs: Sequence[RunConfig], reason: str) -> None: ...
    def failed(self, run_config: RunConfig, error: str) -> None: ...
    def warned(self, run_config: RunConfig, text: str) -> None: ...
    def stopping(self, running: int) -> None: ...
    def update(self, running: list[RunConfig], others: int) -> None: ...


@dataclass
class Outcome:
    """What became of the runs of a sweep."""

    ran: int = 0
    skipped: int = 0  # finished before
    by_others: int = 0  # finished meanwhile by another process
    unsupported: int = 0
    failed: dict[str, str] = field(default_factory=dict)  # name -> error

    @property
    def total(self) -> int:
        return self.ran + self.skipped + self.by_others + self.unsupported + len(self.failed)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.ran + other.ran,
            self.skipped + other.skipped,
            self.by_others + other.by_others,
            self.unsupported + other.unsupported,
            self.failed | other.failed,
        )


def run_plan(plan: Plan, view: View) -> Outcome:
    """Run what `plan` has to do, in `plan.jobs` processes.

    Raises: KeyboardInterrupt after SIGINT, SIGTERM or SIGHUP: running runs have written their checkpoints, or, at the
        second signal, were killed.
    """
    outcome = begin(plan, view)
    if plan.todo:
        with requests_to_stop() as signals:
            _Loop(plan, view, outcome, signals).run()
    return outcome


def begin(plan: Plan, view: View) -> Outcome:
    """What is known of a sweep before anything runs; runs that can't be trained get their folders."""
    from normbench.experiment import record_unsupported

    for reason, run_configs in plan.unsupported.items():
        for run_config in run_configs:
            record_unsupported(run_config, reason)
        view.unsupported(run_configs, reason)
    return Outcome(skipped=len(plan.having(DONE)), unsupported=len(plan.having(UNSUPPORTED)))


@contextmanager
def requests_to_stop() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP that come meanwhile: once means stop soon and lose nothing. The second of
    them raises KeyboardInterrupt at once. A signal that is ignored, as SIGHUP is under nohup, stays ignored."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
        yield received
        return
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) != signal.SIG_IGN]  # fmt: skip
    before = {number: signal.signal(number, note) for number in wanted}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Loop:
    def __init__(self, plan: Plan, view: View, outcome: Outcome, signals: list[int]) -> None:
        self.queue, self.jobs = deque(plan.tasks), plan.jobs
        self.view, self.outcome, self.signals = view, outcome, signals
        self.running: list[Worker] = []
        self.idle: list[Worker] = []
        self.busy: list[RunConfig] = []  # another process is writing them

    def run(self) -> None:
        try:
            while self.queue or self.running or self.busy:
                if self.signals:
                    self._stop()
                    raise KeyboardInterrupt
                while self.queue and len(self.running) < self.jobs:
                    self._start(self.queue.popleft())
                self.view.update([one for worker in self.running for one in worker.left.values()], len(self.busy))
                self._wait()
                self._check_busy()
        finally:
            for worker in (*self.running, *self.idle):  # after an error of ours, too: no orphans
                worker.kill("the sweep ended")

    def _start(self, items: tuple[Item, ...]) -> None:
        self.busy += [item.run_config for item in items if item.status == RUNNING]
        if not (task := tuple(item.run_config for item in items if item.status != RUNNING)):
            return
        again = {item.run_config.name for item in items
                 if item.status == AGAIN and is_finished(item.run_config.folder, item.run_config.identity)}  # fmt: skip
        self.idle = [worker for worker in self.idle if worker.process.exitcode is None]  # somebody may kill them
        worker = self.idle.pop() if self.idle else Worker()
        self.running.append(worker)
        worker.start(task, again)

    def _wait(self) -> None:
        if self.running:
            pool.wait_for(self.running, TICK)
        else:
            time.sleep(TICK)
        for worker in list(self.running):
            run_configs, reports = worker.task, worker.listen()
            limit = next(iter(run_configs.values())).config["cell_timeout"]
            if worker.left and limit is not None and time.monotonic() - worker.started > limit * len(run_configs):
                stack = f" for each run of a stack of {len(run_configs)}" * (len(run_configs) > 1)
                reports += worker.kill(f"it took longer than cell_timeout={limit:g} seconds{stack}")
            for report in reports:
                self._conclude(run_configs[report.run], report)
            if not worker.left:
                self.running.remove(worker)
                if worker.reusable:
                    self.idle.append(worker)
                else:
                    worker.kill("")

    def _conclude(self, run_config: RunConfig, report: Report) -> None:
        from normbench.experiment import record_failure

        if report.kind == pool.WARNING:
            self.view.warned(run_config, report.text)
        elif report.kind == pool.BUSY:
            self.busy.append(run_config)
        elif report.kind == pool.FINISHED and is_finished(run_config.folder, run_config.identity):
            self.outcome.ran += 1
            self.view.finished(Run(run_config.folder))
        elif report.kind != pool.STOPPED:
            error = report.text or "its folder was removed after it had finished"
            record_failure(run_config, error, report.traceback)
            self.outcome.failed[run_config.name] = error
            self.view.failed(run_config, error)

    def _check_busy(self) -> None:
        """A run that another process has left is finished, or ours to continue."""
        for run_config in list(self.busy):
            if not is_locked(run_config.folder / ".lock"):
                self.busy.remove(run_config)
                if is_finished(run_config.folder, run_config.identity):
                    self.outcome.by_others += 1
                    self.view.finished(Run(run_config.folder))
                else:
                    self.queue.append((Item(run_config, RESUMES),))

    def _stop(self) -> None:
        """Let running runs write their checkpoints. A second signal interrupts this."""
        self.view.stopping(sum(len(worker.left) for worker in self.running))
        for worker in self.running:
            worker.stop()
        while self.running:
            self._wait()
