"""Figures drawn by several processes: nine tenths of the time that a report takes is matplotlib's."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress

from normbench.analysis.groups import Groups
from normbench.plots.drawing import Figure
from normbench.plots.figures import FIGURES, draw_all

FEW = 40  # runs, up to which a process starts for longer than it helps
Against = tuple[str, float]  # as for `draw_all`
_asked: list[tuple[Groups, Against]] = []  # of a worker: sent once, not with each figure


def cores() -> int:
    """How many processors this process may use; eight at most, as there are not many more figures."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, count)


@contextmanager
def drawing(groups: Groups, against: Against, jobs: int | None) -> Iterator[Callable[[], list[Figure]]]:
    """Start to draw; the function that is yielded waits for the figures, all of them and in their order."""
    jobs = cores() if jobs is None else jobs
    if jobs < 2 or len(groups.members) <= FEW:
        yield lambda: draw_all(groups, against)
        return
    # Not fork, which copies locks that other threads hold; the server imports matplotlib once for all workers.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(jobs, context, _remember, (groups, against)) as pool:
        futures: list[Future[list[Figure]]] = []
        with suppress(BrokenProcessPool):
            futures += [pool.submit(_draw, place) for place in range(len(FIGURES))]

        def wait() -> list[Figure]:
            try:
                if len(futures) == len(FIGURES):
                    return [figure for future in futures for figure in future.result()]
            except BrokenProcessPool:
                pass
            return draw_all(groups, against)  # a worker was killed, such as for its memory: one alone needs less

        try:
            yield wait
        finally:
            pool.shutdown(cancel_futures=True)


def _remember(groups: Groups, against: Against) -> None:
    _asked[:] = [(groups, against)]


def _draw(place: int) -> list[Figure]:
    return draw_all(*_asked[0], slice(place, place + 1))
