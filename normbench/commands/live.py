"""What a user sees of a sweep: a line for each cell as it ends, above one live view; plain lines where there is no
terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from normbench.commands.console import err, say, shortened
from normbench.config.run_config import RunConfig
from normbench.runs import Run, last_step
from normbench.sweep.plan import DONE, Plan, together
from normbench.sweep.runner import Outcome, how_many

SECONDS_BETWEEN_LINES = 30.0  # where there is no live view
ROWS = 8  # running cells that are shown


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    return f"{minutes} min {left:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def shared(plan: Plan) -> list[str]:
    """The words that all cells have: said once, and not with every cell."""
    first, *others = (item.cell.words for item in plan.items)
    return [word for word in first if all(word in words for words in others)] if others else []


def without(words: list[str], cell: RunConfig) -> list[str]:
    return [word for word in cell.words if word not in words] or cell.words


def heading(plan: Plan) -> str:
    """How many runs, where, and what they share."""
    common = shared(plan)
    words = " ".join(["", "with", *common]) if common else ""
    return f"{len(plan.items)} runs in {shortened(plan.items[0].cell.folder.parent)}{words}"


@dataclass
class SweepView:
    """`finished`, `failed` and `warned` print a line each; `tick` brings what is below them up to date."""

    plan: Plan
    live: Live | None
    begun: float = field(default_factory=time.monotonic)
    failures: int = 0
    best: tuple[float, str] | None = None  # validation accuracy, words
    last: float = field(default_factory=time.monotonic)  # line, where there is no live view
    asked: bool = False  # to stop

    def __post_init__(self) -> None:
        done = self.plan.having(DONE)
        self.words = {item.cell.name: " ".join(without(shared(self.plan), item.cell)) for item in self.plan.items}
        self.steps = {item.cell.name: item.steps for item in self.plan.items}
        self.seconds = {item.cell.name: item.seconds for item in self.plan.items}
        self.open = {item.cell.name for item in self.plan.todo}
        self.count = len(done)
        for item in done:
            self._compare(Run(item.cell.folder))
        if done:
            self._print(f"{len(done)} of {len(self.plan.items)} runs were finished before")

    def finished(self, run: Run) -> None:
        summary = run.summary
        if summary["status"] == "unsupported":
            text = f"unsupported: {summary['reason']}"
        elif summary["status"] == "diverged":
            text = f"diverged at step {summary['diverged_step']:,}"
        else:
            chance = ", at chance" if summary["at_chance"] else ""
            text = f"test accuracy {summary['test_accuracy']:.2%}{chance}, {summary['seconds']['total']:.1f} s"
        self._compare(run)
        self._end(run.folder.name, text)

    def failed(self, cell: RunConfig, error: str) -> None:
        self.failures += 1
        self._end(cell.name, f"failed: {error}")

    def warned(self, cell: RunConfig, text: str) -> None:
        self._print(f"{self.words[cell.name]}: {text}")

    def stopping(self, running: int) -> None:
        self.asked = True
        runs = f"{running} running cell{'' if running == 1 else 's'}"
        self._print(f"stopping: {runs} will write a checkpoint; Ctrl-C again to stop at once")

    def tick(self, running: list[RunConfig], others: int) -> None:
        if self.live is not None:
            self.live.update(self._drawn(running, others))
        elif time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            now = "; ".join(f"{self.words[cell.name]}: {self._state(cell)}" for cell in running[:ROWS])
            self._print(f"[{self.count}/{len(self.words)}] {self._left()}{now}")

    def _drawn(self, running: list[RunConfig], others: int) -> Group:
        head = Table.grid(padding=(0, 1))
        failures = f", {self.failures} failed" if self.failures else ""
        elsewhere = f", {others} running in another process" if others else ""
        head.add_row(
            ProgressBar(len(self.words), self.count, width=30),
            Text(f"{self.count}/{len(self.words)} runs{failures}{elsewhere}  {self._left()}"),
        )
        lines = Table.grid(padding=(0, 2))
        for cell in running[:ROWS]:
            words = Text(self.words[cell.name], no_wrap=True, overflow="ellipsis")
            lines.add_row(words, Text(self._state(cell), no_wrap=True))
        rest = [Text(f"... and {len(running) - ROWS} more")] if len(running) > ROWS else []
        best = [Text(f"best validation accuracy so far: {self.best[0]:.2%}  {self.best[1]}")] if self.best else []
        return Group(head, lines, *rest, *best)

    def _state(self, cell: RunConfig) -> str:
        step, loss = last_step(cell.folder)
        total = self.steps[cell.name]
        return f"step {step:,} of {total:,}, loss {loss:.4f}" if step else "starting"

    def _left(self) -> str:
        """Time left, from what earlier runs tell; otherwise from the pace so far."""
        if not self.open or self.asked:
            return ""
        left = together([self.seconds[name] for name in self.open], how_many(self.plan.items[0].cell))
        if left is None and (ended := len(self.plan.todo) - len(self.open)):
            left = (time.monotonic() - self.begun) / ended * len(self.open)
        return "" if left is None else f"about {duration(left)} left  "

    def _compare(self, run: Run) -> None:
        value = run.summary.get("validation_accuracy")
        if value is not None and (self.best is None or value > self.best[0]):
            self.best = (value, self.words.get(run.folder.name, run.folder.name))

    def _end(self, name: str, text: str) -> None:
        self.count += 1
        self.open.discard(name)
        self._print(f"[{self.count}/{len(self.words)}] {self.words.get(name, name)}: {text}")

    def _print(self, text: str) -> None:
        self.last = time.monotonic()
        err.print(escape(text), soft_wrap=True, highlight=False)


@contextmanager
def sweep_view(plan: Plan) -> Iterator[SweepView]:
    """A sweep, while it runs."""
    say(heading(plan))
    if not err.is_terminal:
        yield SweepView(plan, None)
        return
    with Live(console=err, transient=True, refresh_per_second=4) as live:
        yield SweepView(plan, live)


def print_outcome(outcome: Outcome, total: int) -> None:
    """How many cells of a sweep ran, and which failed."""
    are = "is" if outcome.unsupported == 1 else "are"
    parts = [f"{outcome.ran} ran"]
    parts += [f"{outcome.elsewhere} ran in another process"] if outcome.elsewhere else []
    parts += [f"{outcome.skipped} were finished before"] if outcome.skipped else []
    parts += [f"{outcome.unsupported} {are} unsupported"] if outcome.unsupported else []
    parts += [f"{len(outcome.failed)} failed"] if outcome.failed else []
    say(f"{total} runs: {', '.join(parts)}")
    for name, error in outcome.failed.items():
        say(f"failed: {name}: {error}")
