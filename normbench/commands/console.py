"""Text on a terminal: tables, and how a run or a sweep is doing. Results go to standard output, progress to standard
error: live where that is a terminal, in plain lines elsewhere."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from normbench.runs import Run, last_step

if TYPE_CHECKING:
    from normbench.config.run_config import RunConfig
    from normbench.sweep.plan import Plan
    from normbench.training.callbacks import Progress

# What changes a terminal instead of being seen: control characters, and those that turn the order of text round.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COMMAND = re.compile(r"(?<!usage: )\bnormbench [a-z]+ \S.*")  # to be copied, to the end of its line
SECONDS_BETWEEN_LINES = 5.0  # of a run, where there is no terminal
SECONDS_BETWEEN_LINES_OF_A_SWEEP = 30.0
SECONDS_BETWEEN_BARS = 0.2  # in a notebook
SPARKS = "▁▂▃▄▅▆▇█"
MIN_WIDTH = 12  # of a column that is wrapped
BARS = 8  # running runs that get one


class SafeConsole(Console):
    """Prints no control character that is in a text: what a run's folder says may come from a stranger."""

    def render(self, *about: Any, **options: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*about, **options):
            yield Segment(text if control else CONTROL.sub("\ufffd", text), style, control)


# Where there is no terminal nothing is wrapped at a width that nobody has.
out = SafeConsole(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False, highlight=False)
err = SafeConsole(stderr=True, markup=False, emoji=False, highlight=False)


def say(text: str, to: Console | None = None, width: int | None = None) -> None:
    """Text, on a terminal wrapped at words; what is there to be copied, a path or a command to the end of its line, is
    left whole.

    Args:
        width: wraps it elsewhere, too, and on a wide terminal.
    """
    to = to or out
    for line in text.split("\n"):
        for part in _wrapped(line, min(width or to.width, to.width)) if width or to.is_terminal else [line]:
            to.print(part, soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    """Lines that go on below the last column that begins in the left half of the terminal."""
    if len(line) <= width:
        return [line]
    indent = " " * max((gap.end() for gap in re.finditer("^ +|  +", line) if gap.end() <= width // 2), default=0)
    command = found[0] if (found := COMMAND.search(line)) else ""
    words = line.removesuffix(command)
    parts = wrap(words, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [*parts, indent + command] if command else parts


def say_cut(line: str) -> None:
    """One of many lines, cut at the end of a terminal's."""
    cut = out.is_terminal and len(line) > out.width
    out.print(f"{line[: out.width - 1]}…" if cut else line, soft_wrap=True)


def announce(text: str) -> None:
    """Said before something slow, where somebody waits for it at a terminal."""
    if err.is_terminal:
        say(f"{text} ...", err)


def complain(text: str) -> None:
    """A line on standard error, for what went wrong and is not the user's mistake."""
    say(f"normbench: {text}", err)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] | None = None) -> Table:
    """A table without lines.

    Args:
        rows: of anything with a text; a rich.text.Text keeps its style.
        right: the columns of numbers, which are aligned to the right; None: all but the first.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    texts = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    widest = [max(map(len, (str(cell) for cell in cells))) for cells in zip(columns, *texts, strict=True)]
    names = [not any(" " in str(row[place]) for row in texts) for place in range(len(columns))]
    room = sum(width + 2 if name else MIN_WIDTH for width, name in zip(widest, names, strict=True)) <= out.width
    for place, column in enumerate(columns):
        numbers = column in (columns[1:] if right is None else right)
        keep = room and names[place]  # names have nowhere to be wrapped
        table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold", no_wrap=keep)
    for cells in texts:
        table.add_row(*cells)
    return table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[str] | None = None) -> None:
    out.print(make_table(columns, rows, right))


def sparkline(values: Sequence[float]) -> str:
    """ "▁▄▆▇█", from the smallest value to the largest."""
    low, high = min(values), max(values)
    return "".join(SPARKS[round((value - low) / ((high - low) or 1) * (len(SPARKS) - 1))] for value in values)


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
    runs = "1 run" if len(plan.items) == 1 else f"{len(plan.items)} runs"
    return f"{runs} in {shortened(plan.items[0].run_config.folder.parent)}{words}"


def unsupported(plan: Plan, run_configs: Sequence[RunConfig], reason: str) -> str:
    """How many runs can't be trained for this reason, what they have in common, and the reason."""
    runs = f"{len(run_configs)} runs are" if len(run_configs) > 1 else "1 run is"
    first, *others = (plan.own_words(run_config).split() for run_config in run_configs)
    words = " ".join(word for word in first if all(word in other for other in others))
    return f"{runs} unsupported{f' ({words})' if words else ''}: {reason}"


def say_alone(plan: Plan) -> None:
    """Which runs of a sweep that is to be stacked can't be."""
    for reason, count in plan.alone.items():
        say(f"{count} run{'s' * (count > 1)} can't be stacked, to be trained one by one: {reason}")


def agree(plan: Plan) -> bool:
    """Ask whether a sweep is to go on; False where nobody sits at a terminal."""
    if not (sys.stdin.isatty() and err.is_terminal):
        return False
    left = plan.seconds_left()
    time = "" if left is None else f", about {duration(left)}"
    try:
        answer = err.input(f"{len(plan.todo):,} runs{time}: go on? [y/N] ", markup=False, emoji=False)
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def like_out() -> Console:
    """A console that keeps its text in `file`, as it would be seen on standard output."""
    width, terminal = out.width, out.is_terminal
    return SafeConsole(file=io.StringIO(), width=width, force_terminal=terminal, force_jupyter=False, markup=False,
                       emoji=False, highlight=False)  # fmt: skip


class NotebookBars(Bars):
    """Bars in a notebook, as one output that is replaced, and is empty in the end. Those of rich need ipywidgets."""

    shown: Any = None
    updated = 0.0

    def start(self) -> None:
        from IPython.display import display

        self.shown = display(self, display_id=True)

    def refresh(self) -> None:
        if self.shown is not None and time.monotonic() - self.updated > SECONDS_BETWEEN_BARS:
            self.updated = time.monotonic()
            self.shown.update(self)

    def update(self, *task: Any, **values: Any) -> None:
        super().update(*task, **values)
        self.refresh()

    def stop(self) -> None:
        self.shown.update({"text/plain": ""}, raw=True)


def _is_live() -> bool:
    return err.is_terminal or err.is_jupyter


def _bars(*columns: ProgressColumn) -> Bars:
    kind = NotebookBars if err.is_jupyter else Bars
    return kind(*columns, console=err, transient=True, disable=not _is_live())


@contextmanager
def run_progress(lines: bool = True) -> Iterator[Callable[[Progress], None]]:
    """A function that shows how a single run is doing; with `lines` also where nobody sees bars."""
    words = TextColumn("steps  {task.description}", markup=False)
    with _bars(BarColumn(), MofNCompleteColumn(), words, TimeRemainingColumn()) as bars:
        task, last = bars.add_task("starting", total=None), time.monotonic()

        def show(progress: Progress) -> None:
            nonlocal last
            accuracy = "" if progress.accuracy is None else f", validation accuracy {progress.accuracy:.1%}"
            state = f"{progress.samples_per_second:,.0f} samples/s, loss {progress.loss:.4f}{accuracy}"
            bars.update(task, total=progress.total, completed=progress.step, description=state)
            due = progress.step == progress.total or time.monotonic() - last >= SECONDS_BETWEEN_LINES
            if due and lines and not _is_live():
                last = time.monotonic()
                say(f"step {progress.step:,} of {progress.total:,}, {state}", err)

        yield show


class SweepView:
    """A line for each run as it ends, above a bar for the sweep and for each of the first running runs.

    Used as a context manager; the methods are those that `sweep.runner.View` asks for.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.begin, self.last_line = plan, time.monotonic(), time.monotonic()
        self.items = {item.run_config.name: item for item in plan.items}
        self.open = {item.run_config.name for item in plan.todo}
        self.failures, self.stopped, self.done = 0, False, len(plan.having("done"))
        room = Column(no_wrap=True, overflow="ellipsis", max_width=max(20, err.width - 40))  # the rest is for numbers
        words = TextColumn("{task.description}", markup=False, table_column=room)
        state = TextColumn("{task.fields[state]}", markup=False)
        self.bars = _bars(words, BarColumn(), MofNCompleteColumn(), state)
        self.sweep_bar = self.bars.add_task("runs", total=len(plan.items), completed=self.done, state="")
        self.run_bars = [self.bars.add_task("", visible=False, state="") for _ in range(BARS)]

    def __enter__(self) -> SweepView:
        if self.done:
            self.say(f"{self.done} of {len(self.items)} runs were finished before")
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

    def unsupported(self, run_configs: Sequence[RunConfig], reason: str) -> None:
        self.done += len(run_configs)
        self.say(f"[{self.done}/{len(self.items)}] {unsupported(self.plan, run_configs, reason)}")

    def failed(self, run_config: RunConfig, error: str) -> None:
        self.failures += 1
        self._end(run_config.name, f"failed: {error}")

    def warned(self, run_config: RunConfig, text: str) -> None:
        self.say(f"{self._words(run_config.name)}: {text}")

    def stopping(self, running: int) -> None:
        self.stopped = True
        runs = f"{running} running run{'' if running == 1 else 's'}"
        self.say(f"stopping: {runs} will write a checkpoint; Ctrl-C again to stop at once")

    def update(self, running: list[RunConfig], others: int) -> None:
        """`others`: runs that are running in another process."""
        waiting = SECONDS_BETWEEN_LINES_OF_A_SWEEP - (time.monotonic() - self.last_line)
        if not _is_live() and waiting > 0:
            return
        states = [(run_config.name, *last_step(run_config.folder)) for run_config in running[:BARS]]
        if not _is_live():
            now = [f"{self._words(name)}: step {step:,}, loss {loss:.4f}" for name, step, loss in states]
            self.say("; ".join([f"[{self.done}/{len(self.items)}] {self._time_left()}", *now]))
            return
        for bar, shown in zip_longest(self.run_bars, states):
            name, step, loss = shown or ("", 0, 0.0)
            total = self.items[name].steps if shown else None
            state = f"loss {loss:.4f}" if step else "starting"
            words = self._words(name) if shown else ""
            self.bars.update(bar, visible=bool(shown), description=words, total=total, completed=step, state=state)
        counts = {"failed": self.failures, "in another process": others, "more running": len(running) - BARS}
        parts = [f"{count} {words}" for words, count in counts.items() if count > 0]
        self.bars.update(self.sweep_bar, completed=self.done, state="  ".join([*parts, self._time_left()]))

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
        self.say(f"[{self.done}/{len(self.items)}] {self._words(name)}: {text}")

    def say(self, text: str) -> None:
        self.last_line = time.monotonic()
        say(text, err)
