"""Progress of something slow: a bar on a terminal, one line in the log elsewhere."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("normbench")


@contextmanager
def progress(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Give a function `advance(n)` to call as the work goes on.

    Args:
        total: amount of work, None if it is not known.
        unit: of the amounts: "bytes" are shown as megabytes.
    """
    from rich.console import Console  # imported late: only slow things need it

    console = Console(stderr=True)
    if not console.is_terminal:
        amount = "" if total is None else f" ({total / 1e6:.0f} MB)" if unit == "bytes" else f" ({total:,} {unit})"
        log.info("%s%s", what, amount)
        yield lambda n: None
        return
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    with Progress(TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
