"""What a user sees while and after something runs: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from normbench.config.run_config import Progress, RunConfig
from normbench.runs import Run, load

if TYPE_CHECKING:
    from normbench.norms.describe import Layer
    from normbench.report.build import Report

# Where there is no terminal nothing is wrapped at a width that nobody has.
out = Console(width=None if sys.stdout.isatty() else 200)  # results
err = Console(stderr=True)  # how it is going
SECONDS_BETWEEN_LINES = 5.0  # where there is no live line


def say(text: str) -> None:
    """A line of text on standard output, never wrapped: it may be a command or a path to copy."""
    out.print(escape(text), soft_wrap=True, highlight=False)


def settings(config: dict[str, Any]) -> str:
    """The values that everything else is read against, in a line."""
    budget = next((f"{key}={config[key]:,}" for key in ("max_steps", "max_samples") if config[key] is not None), None)
    shown = [f"{key}={config[key]}" for key in ("optimizer", "lr", "batch_size")]
    shown += [budget or f"epochs={config['epochs']:g}", f"weight_decay={config['weight_decay']:g}"]
    usual = {"schedule": "constant", "lr_scaling": "none", "accumulate": 1, "clip_norm": None}
    shown += [f"{key}={config[key]}" for key, value in usual.items() if config[key] != value]
    model = config["model"]
    shown += [f"model.{key}={model[key]}" for key in ("dropout", "init") if key in model]
    return ", ".join([*shown, f"seed={config['seed']}", f"device={config['device']}", f"threads={config['threads']}"])


@contextmanager
def run_view(cell: RunConfig, table_bytes: int) -> Iterator[Callable[[Progress], None]]:
    """A single run: its settings first, then how it is going.

    Args:
        table_bytes: that its instruments will write, at most.
    """
    say(" · ".join([cell.choices["norm"], cell.choices["model"], cell.choices["dataset"]]))
    say(settings(cell.config))
    if table_bytes:
        say(f"instruments={cell.choices['instruments']}: tables of at most {table_bytes / 1e6:.1f} MB")
    if not err.is_terminal:
        last = time.monotonic()

        def tell(progress: Progress) -> None:
            nonlocal last
            if progress.step == progress.total or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                err.print(f"step {progress.step:,} of {progress.total:,}, {_state(progress)}", soft_wrap=True)

        yield tell
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("steps  {task.description}"), TimeRemainingColumn())
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda p: bar.update(task, total=p.total, completed=p.step, description=_state(p))


def _state(progress: Progress) -> str:
    accuracy = "" if progress.accuracy is None else f", validation accuracy {progress.accuracy:.1%}"
    return f"{progress.samples_per_second:,.0f} samples/s, loss {progress.loss:.4f}{accuracy}"


def print_run(run: Run, cell: RunConfig, finished_before: bool) -> None:
    """What came out of a single run, what it can be compared with, and where it is."""
    summary = run.summary
    if finished_before:
        say("This run was finished before; nothing was trained. These are its results.")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    seconds = summary["seconds"]
    if summary["status"] == "diverged":
        table.add_row("diverged", f"the loss was no longer finite at step {summary['diverged_step']:,}")
    else:
        chance = "  (at chance: no better than naming the commonest class)" if summary["at_chance"] else ""
        data = summary["dataset"]
        where = f" on {data['test']:,} images" + (" of synthetic data" if data["synthetic"] else "")
        table.add_row("test accuracy", f"{summary['test_accuracy']:.2%}{where}{chance}")
        table.add_row("validation accuracy", f"{summary['validation_accuracy']:.2%}")
    spent = ", ".join(f"{what} {seconds[what]:.1f} s" for what in ("training", "evaluating", "measuring"))
    table.add_row("time", f"{seconds['total']:.1f} s ({spent})")
    table.add_row("steps, samples", f"{summary['steps']:,}, {summary['samples']:,}")
    out.print(table)
    if words := summary.get("remark"):
        say(f"note: {words}")
    if shift := summary.get("measured", {}).get("shift"):
        moved = plain_table()
        moved.add_column("block")
        moved.add_column("shift", justify="right")
        for layer, value in shift.items():
            moved.add_row(layer, "-" if value is None else f"{value:.2f}")
        say("\nhow far the input of each block moved from the first step to the last, in standard deviations of a unit")
        out.print(moved)
    _print_neighbours(cell)
    say(f"\nfolder: {shortened(run.folder)}")


def plain_table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="dim")


def _print_neighbours(cell: RunConfig) -> None:
    """Finished runs that differ from this one in the scheme only, or the command that would make them."""
    own, rows = _without_scheme(cell.identity), []
    for run in load(cell.folder.parent):
        if run.folder != cell.folder and _identity(run) == own:
            accuracy = run.summary.get("test_accuracy")
            words = [word for word in run.record["overrides"] if word.startswith("norm")]
            rows.append((" ".join(words), run.summary["status"] if accuracy is None else f"{accuracy:.2%}"))
    if not rows:
        rest = [word for word in cell.words if not word.startswith("norm")]
        others = [name for name in ("none", "batch", "layer") if name != cell.choices["norm"]]
        study = [] if cell.config["study"] == "scratch" else [f"study={cell.config['study']}"]
        say(f"\nto compare: {' '.join(['normbench run -m norm=' + ','.join(others), *rest, *study])}")
        return
    table = plain_table()
    table.add_column("scheme")
    table.add_column("test accuracy", justify="right")
    for words_, result in sorted(rows):
        table.add_row(escape(words_), result)
    say("\nthe same with another scheme")
    out.print(table)


def _identity(run: Run) -> dict[str, Any] | None:
    """That of a finished run but for its scheme; None for any other, and for a folder that can't be read."""
    try:
        return _without_scheme(run.record.get("identity", {})) if run.summary else None
    except (OSError, ValueError):
        return None


def _without_scheme(identity: dict[str, Any]) -> dict[str, Any]:
    if not identity:
        return {}
    choices = {k: v for k, v in identity["choices"].items() if k != "norm"}
    values = {k: v for k, v in identity["values"].items() if not k.startswith("norm.")}
    return {**identity, "choices": choices, "values": values}


def print_layers(cell: RunConfig, layers: list[Layer], facts: str) -> None:
    """`normbench describe`: the blocks of a network."""
    say(" · ".join([cell.choices["norm"], cell.choices["model"], cell.choices["dataset"]]))
    table = plain_table()
    for column in ("block", "weights", "output", "parameters", "norm", "normalised over"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for layer in layers:
        table.add_row(layer.name, layer.linear, layer.shape, f"{layer.parameters:,}", layer.norm, layer.over)
    out.print(table)
    say(facts)


def print_report(report: Report) -> None:
    """The leaderboard, the answer, and where the page is."""
    from normbench.analysis.leaderboard_table import print_leaderboard

    print_leaderboard(report.leaderboard, out)
    for words in [*report.content.answer, report.content.filtered]:
        if words and not words.startswith("SYNTHETIC"):  # which the leaderboard has said
            say(words)
    say(f"report: {shortened(report.page)}")


def shortened(path: Path) -> Path:
    """`path` as seen from here, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
