"""A second process that lays out and saves figures while this one draws the next: half of a figure's time."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from normbench.plots.drawing import Figure, finish, look

# `-c` and not multiprocessing, which would begin the caller's script once more
SERVE = "from normbench.plots.saver import serve; serve()"


class Save(Protocol):
    """Begin to `finish` a figure. What it returns says how that went."""

    def __call__(self, *arguments: Any) -> Future[Figure | None]: ...


@contextmanager
def saver(apart: bool) -> Iterator[Save]:
    """A function that finishes a figure: in a second process if `apart`, else at once and here. Same bytes either way.

    What goes wrong here is raised at once; in the second process it is the future's exception. That process ends with
    this one, however this one ends: its standard input does.
    """
    process = _start() if apart else None
    if process is None:
        yield _here
        return
    to, back = process.stdin, process.stdout
    assert to is not None
    assert back is not None

    def ask(task: bytes) -> Figure | None:
        to.write(task)
        to.flush()
        found = pickle.load(back)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Figure)
        return found

    thread = ThreadPoolExecutor(1)
    try:
        yield lambda *arguments: thread.submit(ask, pickle.dumps(arguments))
    finally:
        thread.shutdown(cancel_futures=True)  # of a report that was interrupted
        with suppress(OSError):  # it has died, and the futures said so
            to.close()
        back.close()
        process.wait()


def _start() -> subprocess.Popen[bytes] | None:
    """None where no process can be started."""
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        return subprocess.Popen([sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=paths)
    except OSError:
        return None


def _here(*arguments: Any) -> Future[Figure | None]:
    done: Future[Figure | None] = Future()
    done.set_result(finish(*arguments))
    return done


def serve() -> None:
    """The second process: figures come in on its standard input until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who began us, and ends our input
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # whatever prints must not come between
    with look():
        while True:
            try:
                arguments = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                reply: Figure | Exception = finish(*arguments)
            except Exception as error:
                reply = error
            pickle.dump(reply, out)
            out.flush()
