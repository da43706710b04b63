"""Processes that train runs one after another, forked in milliseconds from a server that has imported torch.

A run has its process to itself: a crash, a kill or a lack of memory is that run's failure and no other's. After a
failure, and after a run with code of the user's own, which may change anything in a process, comes a new process. The
server (multiprocessing's fork server) runs no tensor operation and never touches a GPU: what it forks is clean.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from types import ModuleType

from normbench.config.run_config import RunConfig, has_own_code
from normbench.errors import Stopped
from normbench.runs import Locked

Task = tuple[RunConfig, ...]  # what a process is given at once: one run, or a stack of runs
LONGEST = 20_000  # characters of a traceback that are sent: fewer than a pipe holds, so that sending never waits
# What is said of a run.
FINISHED, FAILED, STOPPED, BUSY, WARNING = "finished", "failed", "stopped", "busy", "warning"

_context = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the server, which imports torch in the background. Safe to repeat."""
    _context.set_forkserver_preload(["normbench.experiment"])
    # What is forked from it must not die of a Ctrl-C, or of a terminal that is closed, before it can say that it
    # doesn't want to: the terminal sends it to every process.
    if threading.current_thread() is not threading.main_thread():
        return  # signals are the main thread's alone; the first process starts the server, too
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """A process that is started meanwhile does not import the program that starts it, which Python would have it do:
    a script that sweeps without `if __name__ == "__main__"` would begin once more in each of them.
    """
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(frozen=True)
class Report:
    """What a worker says of a run: that it is finished | failed | stopped | busy (another process is writing it), or a
    warning to be shown.
    """

    kind: str
    run: str  # its name
    text: str = ""
    traceback: str = ""


class Worker:
    """A process that is given tasks, one after another."""

    def __init__(self) -> None:
        start_server()
        self.connection, theirs = _context.Pipe()
        self.process = _context.Process(target=_work, args=(theirs,), daemon=True)
        with _hidden_main():
            self.process.start()
        theirs.close()  # the process has the only one, so its end is the end of the process
        self.task: dict[str, RunConfig] = {}
        self.left: dict[str, RunConfig] = {}  # runs of the task that have no result yet
        self.started = 0.0
        self.reusable = True

    def start(self, task: Task, again: Collection[str] = ()) -> None:
        """Train these runs; those whose names are in `again` from the beginning, whatever is in their folders."""
        self.task, self.started = {run_config.name: run_config for run_config in task}, time.monotonic()
        self.left = dict(self.task)
        self.reusable = not any(has_own_code(run_config.config) for run_config in task)
        with suppress(OSError):  # it was killed while it waited, and `listen` says so
            self.connection.send((task, again))

    def listen(self) -> list[Report]:
        """What it has said since. If its process has ended, runs without a result have failed."""
        if (code := self.process.exitcode) is None:
            return self._receive()
        why = f"its process exited with {code}"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = f"its process was killed by {name}" + " (out of memory?)" * (-code == signal.SIGKILL)
        return self.kill(why)

    def kill(self, why: str) -> list[Report]:
        """End the process: for this reason runs without a result have failed. Returns what it has said since."""
        self.process.kill()
        self.process.join()
        reports = [*self._receive(), *(Report(FAILED, name, why) for name in self.left)]
        self.left, self.reusable = {}, False
        self.connection.close()
        return reports

    def _receive(self) -> list[Report]:
        reports: list[Report] = []
        with suppress(EOFError, OSError):  # it has ended
            while self.connection.poll():
                reports.append(self.connection.recv())
        for report in reports:
            if report.kind != WARNING:
                self.left.pop(report.run)
                self.reusable &= report.kind in (FINISHED, BUSY)
        return reports

    def stop(self) -> None:
        """Let its runs write their checkpoints and end."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, signal.SIGTERM)


def wait_for(workers: Collection[Worker], seconds: float) -> None:
    """Until one of them sends something or ends, but not longer than `seconds`."""
    wait([handle for worker in workers for handle in (worker.connection, worker.process.sentinel)], seconds)


def _work(connection: Connection) -> None:
    """In the process of a worker, which ends when the sweep does."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the sweep, which gets it too, decides
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log, sender = logging.getLogger("normbench"), _Sender(connection)
    log.addHandler(sender)
    log.propagate = False
    gc.freeze()  # what the server has imported is here for good: not to be searched for garbage after every run
    with suppress(EOFError, OSError):
        while True:
            task, again = connection.recv()
            sender.run = task[0].name
            _train(task, again, stopping, connection)
            gc.collect()


def _train(task: Task, again: Collection[str], stopping: threading.Event, connection: Connection) -> None:
    """Train the runs of a task, and say of each how it ended as soon as it has."""
    from normbench.experiment import execute, execute_stacked, forget

    left = {run_config.name: run_config for run_config in task}

    def ended(run_config: RunConfig, error: BaseException | None) -> None:
        del left[run_config.name]
        connection.send(_report(run_config.name, error))

    for run_config in [left[name] for name in again]:
        try:
            forget(run_config)
        except Exception as error:
            ended(run_config, error)
    try:
        if len(task) > 1:
            execute_stacked(tuple(left.values()), ended, stopping.is_set)
        elif left:
            execute(task[0], stop=stopping.is_set, checked=True)
            ended(task[0], None)
    except BaseException as error:  # KeyboardInterrupt and SystemExit, too: whatever it was, it is these runs' failure
        for run_config in tuple(left.values()):
            ended(run_config, error)


def _report(run: str, error: BaseException | None) -> Report:
    if error is None:
        return Report(FINISHED, run)
    if isinstance(error, Stopped):
        return Report(STOPPED, run)
    if isinstance(error, Locked):
        return Report(BUSY, run, str(error))
    trace = "".join(traceback.format_exception(error))[-LONGEST:]
    return Report(FAILED, run, f"{type(error).__name__}: {error}"[:LONGEST], trace)


def _die_with_parent() -> None:
    """No orphans: the sweep was killed, so nobody waits for this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Sender(logging.Handler):
    """Sends warnings of a `run` to the sweep: its processes print nothing."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self.connection, self.run = connection, ""

    def emit(self, record: logging.LogRecord) -> None:
        self.connection.send(Report(WARNING, self.run, self.format(record)))
