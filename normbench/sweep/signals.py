"""Ctrl-C and its kind: once means stop soon and lose nothing, twice means now."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def requests_to_stop() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP that come meanwhile; the second of them raises KeyboardInterrupt at once."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
        yield came
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
