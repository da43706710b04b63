"""Text on a terminal: tables, and how a run or a sweep is doing. Results go to standard output, progress to standard
error: live where that is a terminal, in plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from normbench.runs import Run, last_step

if TYPE_CHECKING:
    from normbench.config.run_config import RunConfig
    from normbench.sweep.plan import Plan
    from normbench.training.callbacks import Progress

# Where there is no terminal nothing is wrapped at a width that nobody has.
out = Console(width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True)
SECONDS_BETWEEN_LINES = 5.0  # of a run, where there is no terminal
SECONDS_BETWEEN_LINES_OF_A_SWEEP = 30.0
BARS = 8  # running runs that get one


def say(text: str) -> None:
    """A line of text on standard output, never wrapped: it may be a command or a path to copy."""
    out.print(escape(text), soft_wrap=True, highlight=False)


def complain(text: str) -> None:
    """A line on standard error, for what went wrong and is not the user's mistake."""
    err.print(f"normbench: {text}", soft_wrap=True, highlight=False, markup=False)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] | None = None) -> Table:
    """A table without lines.

    Args:
        rows: of anything with a text; a rich.text.Text keeps its style.
        right: the columns of numbers, which are aligned to the right; None: all but the first.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        numbers = column in (columns[1:] if right is None else right)
        table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] | None = None) -> None:
    out.print(make_table(columns, rows, right))


def title(choices: Mapping[str, str]) -> str:
    """ "batch · mlp · mnist"."""
    return " · ".join(choices[group] for group in ("norm", "model", "dataset"))


def shortened(path: Path) -> Path:
    """`path` as seen from here, if it lies below."""
    with suppress(OSError):  # the working folder may have been removed meanwhile
        return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
    return path


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    return f"{minutes} min {left:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def heading(plan: Plan) -> str:
    """How many runs, where, and what they share."""
    words = " ".join(["", "with", *plan.shared_words]) if plan.shared_words else ""
    return f"{len(plan.items)} runs in {shortened(plan.items[0].run_config.folder.parent)}{words}"


@contextmanager
def run_progress() -> Iterator[Callable[[Progress], None]]:
    """A function that shows how a single run is doing."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("steps  {task.description}"), TimeRemainingColumn())
    with Bars(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:
        task, last = bars.add_task("starting", total=None), time.monotonic()

        def show(progress: Progress) -> None:
            nonlocal last
            accuracy = "" if progress.accuracy is None else f", validation accuracy {progress.accuracy:.1%}"
            state = f"{progress.samples_per_second:,.0f} samples/s, loss {progress.loss:.4f}{accuracy}"
            bars.update(task, total=progress.total, completed=progress.step, description=state)
            due = progress.step == progress.total or time.monotonic() - last >= SECONDS_BETWEEN_LINES
            if due and not err.is_terminal:
                last = time.monotonic()
                err.print(f"step {progress.step:,} of {progress.total:,}, {state}", soft_wrap=True)

        yield show


class SweepView:
    """A line for each run as it ends, above a bar for the sweep and for each of the first running runs.

    Used as a context manager; the methods are those that `sweep.runner.View` asks for.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.begin, self.last_line = plan, time.monotonic(), time.monotonic()
        self.items = {item.run_config.name: item for item in plan.items}
        self.open = {item.run_config.name for item in plan.todo}
        self.failures, self.stopped = 0, False
        self.done = self.before = len(plan.having("done"))
        words, state = TextColumn("{task.description}"), TextColumn("{task.fields[state]}")
        columns = (words, BarColumn(), MofNCompleteColumn(), state)
        self.bars = Bars(*columns, console=err, transient=True, disable=not err.is_terminal)
        self.sweep_bar = self.bars.add_task("runs", total=len(plan.items), completed=self.done, state="")
        self.run_bars: dict[str, TaskID] = {}

    def __enter__(self) -> SweepView:
        if self.before:
            self._print(f"{self.before} of {len(self.items)} runs were finished before")
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def finished(self, run: Run) -> None:
        summary = run.summary
        if summary["status"] == "unsupported":
            text = f"unsupported: {summary['reason']}"
        elif summary["status"] == "diverged":
            text = f"diverged at step {summary['diverged_step']:,}"
        else:
            chance = ", at chance" if summary["at_chance"] else ""
            text = f"test accuracy {summary['test_accuracy']:.2%}{chance}, {summary['seconds']['total']:.1f} s"
        self._end(run.folder.name, text)

    def failed(self, run_config: RunConfig, error: str) -> None:
        self.failures += 1
        self._end(run_config.name, f"failed: {error}")

    def warned(self, run_config: RunConfig, text: str) -> None:
        self._print(f"{self._words(run_config.name)}: {text}")

    def stopping(self, running: int) -> None:
        self.stopped = True
        runs = f"{running} running run{'' if running == 1 else 's'}"
        self._print(f"stopping: {runs} will write a checkpoint; Ctrl-C again to stop at once")

    def update(self, running: list[RunConfig], others: int) -> None:
        """`others`: runs that are running in another process."""
        shown = [run_config.name for run_config in running[:BARS]]
        states = {run_config.name: last_step(run_config.folder) for run_config in running[:BARS]}
        if not err.is_terminal:
            if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES_OF_A_SWEEP:
                now = [f"{self._words(name)}: step {step:,}, loss {loss:.4f}" for name, (step, loss) in states.items()]
                self._print("; ".join([f"[{self.done}/{len(self.items)}] {self._time_left()}", *now]))
            return
        for name in self.run_bars.keys() - set(shown):
            self.bars.remove_task(self.run_bars.pop(name))
        for name, (step, loss) in states.items():
            if name not in self.run_bars:
                self.run_bars[name] = self.bars.add_task(self._words(name), total=self.items[name].steps, state="")
            self.bars.update(self.run_bars[name], completed=step, state=f"loss {loss:.4f}" if step else "starting")
        counts = [f"{self.failures} failed"] * bool(self.failures) + [f"{others} in another process"] * bool(others)
        more = [f"{len(running) - BARS} more running"] if len(running) > BARS else []
        state = "  ".join([*counts, *more, self._time_left()])
        self.bars.update(self.sweep_bar, completed=self.done, state=state)

    def _words(self, name: str) -> str:
        return self.plan.own_words(self.items[name].run_config)

    def _time_left(self) -> str:
        """From what earlier runs took; where that is unknown, from the pace so far."""
        if not self.open or self.stopped:
            return ""
        left = self.plan.seconds_left(self.open)
        if left is None and (ended := len(self.plan.todo) - len(self.open)):
            left = (time.monotonic() - self.begin) / ended * len(self.open)
        return "" if left is None else f"about {duration(left)} left"

    def _end(self, name: str, text: str) -> None:
        self.done += 1
        self.open.discard(name)
        self._print(f"[{self.done}/{len(self.items)}] {self._words(name)}: {text}")

    def _print(self, text: str) -> None:
        self.last_line = time.monotonic()
        err.print(escape(text), soft_wrap=True, highlight=False)
