"""One process per run, forked in milliseconds from a server that has imported torch and does nothing else.

A process of its own for each run: a crash, a kill or a lack of memory is that run's failure and no other's. The
server (multiprocessing's fork server) runs no tensor operation and never touches a GPU: what it forks is clean.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from normbench.config.run_config import RunConfig
from normbench.errors import Stopped
from normbench.runs import Locked

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

LONGEST = 20_000  # characters of a traceback that are sent: fewer than a pipe holds, so that sending never waits
# How a run ended, as its process says it.
FINISHED, FAILED, STOPPED, BUSY, WARNING = "finished", "failed", "stopped", "busy", "warning"

_context = multiprocessing.get_context("forkserver")


def start_server() -> None:
    """Start the server, which imports torch in the background. Safe to repeat."""
    # What is forked from it must not die of a Ctrl-C, or of a terminal that is closed, before it can say that it
    # doesn't want to: the terminal sends it to every process.
    if threading.current_thread() is not threading.main_thread():
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        _context.set_forkserver_preload(["normbench.experiment", "torch._dynamo"])
        forkserver.ensure_running()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(eq=False)
class Worker:
    """A process that runs one run.

    `result` is how it ended: finished | failed | stopped | busy (another process is writing the run), with `error` and
    `traceback` where it failed; empty while it runs.
    """

    run_config: RunConfig
    process: ForkServerProcess
    inbox: Connection
    started: float = field(default_factory=time.monotonic)
    result: str = ""
    error: str = ""
    traceback: str = ""
    warnings: list[str] = field(default_factory=list)  # to be shown

    def listen(self) -> None:
        """Take in what it has sent."""
        try:
            while self.inbox.poll():
                kind, text, trace = self.inbox.recv()
                if kind == WARNING:
                    self.warnings.append(text)
                else:
                    self.result, self.error, self.traceback = kind, text, trace
        except (EOFError, OSError):  # it has ended
            pass

    @property
    def ended(self) -> bool:
        """Has its process ended? Then `result` says how."""
        if (code := self.process.exitcode) is None:
            return False
        self.listen()
        if not self.result:
            self.result, self.error = FAILED, f"its process exited with {code}"
            if code < 0:
                name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
                hint = " (out of memory?)" if -code == signal.SIGKILL else ""
                self.error = f"its process was killed by {name}{hint}"
        return True

    def stop(self) -> None:
        """Let it write its checkpoint and end."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, signal.SIGTERM)

    def kill(self, why: str) -> None:
        self.result, self.error = FAILED, why
        self.process.kill()
        self.process.join()


def start(run_config: RunConfig, again: bool) -> Worker:
    """Train `run_config` in a new process. `again`: from the beginning, whatever is in its folder."""
    start_server()
    inbox, outbox = _context.Pipe(duplex=False)
    process = _context.Process(target=_work, args=(run_config, again, outbox), daemon=True)
    process.start()
    outbox.close()  # ours: theirs is the only one, so its end is the end of the process
    return Worker(run_config, process, inbox)


def wait_for(workers: list[Worker], seconds: float) -> None:
    """Until one of them sends something or ends, but not longer than `seconds`."""
    wait([handle for worker in workers for handle in (worker.inbox, worker.process.sentinel)], seconds)


def _work(run_config: RunConfig, again: bool, outbox: Connection) -> None:
    """In the process of a run."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the sweep, which gets it too, decides
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = logging.getLogger("normbench")
    log.addHandler(_Sender(outbox))
    log.propagate = False
    from normbench.experiment import execute, forget

    try:
        if again:
            forget(run_config)
        execute(run_config, stop=stopping.is_set)
        outbox.send((FINISHED, "", ""))
    except Stopped:
        outbox.send((STOPPED, "", ""))
    except Locked as error:
        outbox.send((BUSY, str(error), ""))
    except BaseException as error:  # KeyboardInterrupt and SystemExit, too: whatever it was, it is this run's failure
        outbox.send((FAILED, f"{type(error).__name__}: {error}"[:LONGEST], traceback.format_exc()[-LONGEST:]))
    outbox.close()


def _die_with_parent() -> None:
    """No orphans: the sweep was killed, so nobody waits for this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


class _Sender(logging.Handler):
    """Sends warnings to the sweep: processes of runs print nothing."""

    def __init__(self, outbox: Connection) -> None:
        super().__init__(logging.WARNING)
        self.outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self.outbox.send((WARNING, self.format(record), ""))
