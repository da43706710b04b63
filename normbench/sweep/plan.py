"""What a sweep is going to do: every cell is looked at before the first one starts. Writes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError
from normbench.runs import Run, is_finished, last_step
from normbench.sweep.timing import Timings, earlier_runs

if TYPE_CHECKING:
    from normbench.experiment import Prepared

# What cannot change whether a network can be trained, nor how long that takes: cells that differ in these alone are
# looked at once.
IRRELEVANT = {
    "seed",
    "lr",
    "momentum",
    "weight_decay",
    "decay_norm_parameters",
    "growth",
    "warmup",
    "steps_at",
    "study",
}
IRRELEVANT |= {"results_dir", "jobs", "shard", "rerun", "cell_timeout", "checkpoint_seconds", "save_model"}
DONE, RESUMES, NEW, AGAIN, UNSUPPORTED, RUNNING = "done", "resumes", "new", "again", "unsupported", "running"


@dataclass(frozen=True)
class Item:
    """One cell of a plan.

    Args:
        status: done | resumes (from a checkpoint) | new | again (it failed, or `rerun` asks for it) | unsupported |
            running (in another process).
        steps: of the whole run.
        behind: of these, those that a checkpoint saves it from doing again, as far as its tables tell.
        reason: why it is unsupported.
        disk: bytes that its folder takes, at most.
        seconds: that it still takes; None where no earlier run tells.
        work: a measure of how long it takes, to begin with the longest.
    """

    cell: RunConfig
    status: str
    steps: int = 0
    behind: int = 0
    reason: str = ""
    disk: int = 0
    seconds: float | None = None
    work: float = 0.0

    @property
    def samples(self) -> int:
        return self.steps * self.cell.config["batch_size"] * self.cell.config["accumulate"]


@dataclass(frozen=True)
class Plan:
    """A sweep that was looked at: `items` in the order of the grid, `todo` in that of running."""

    items: list[Item]

    def having(self, *statuses: str) -> list[Item]:
        return [item for item in self.items if item.status in statuses]

    @property
    def todo(self) -> list[Item]:
        """Seed by seed, so that every scheme has results early; within a seed the longest first."""
        todo = self.having(NEW, RESUMES, AGAIN, RUNNING)
        return sorted(todo, key=lambda item: (item.cell.config["seed"], -item.work))

    def seconds_left(self, jobs: int) -> float | None:
        """None while the time of some cell is unknown."""
        return together([item.seconds for item in self.todo], jobs)


def together(seconds: Sequence[float | None], jobs: int) -> float | None:
    """How long cells take that run `jobs` at a time: no less than the longest. None while one of them is unknown."""
    known = [one for one in seconds if one is not None]
    return max(sum(known) / jobs, *known) if known and len(known) == len(seconds) else None


def examine(cells: Iterable[RunConfig], timings: Timings | None = None) -> Plan:
    """Check every cell. Raises ConfigError for the first one that nobody can have meant."""
    items = [_look(cell) for cell in cells]
    if all(item.status == DONE for item in items):
        return Plan(items)
    from normbench.errors import Unsupported
    from normbench.experiment import prepare_cell

    timings = timings or Timings()
    finished = [item.cell for item in items if item.status == DONE]
    for cell in finished:
        timings.learn(cell.choices, cell.config, Run(cell.folder).summary)
    timings.learn_all(earlier_runs(items[0].cell.folder.parent.parent, {cell.folder for cell in finished}))
    seen: dict[str, Prepared | Unsupported] = {}
    for index, item in enumerate(items):
        if item.status == DONE:
            continue
        key = _key(item.cell.config)
        if key not in seen:
            try:
                seen[key] = prepare_cell(item.cell)
            except Unsupported as error:
                seen[key] = error
            except ConfigError as error:
                raise ConfigError(f"{error} (in {' '.join(item.cell.words)})") from error
        ready = seen[key]
        if isinstance(ready, Exception):
            items[index] = replace(item, status=UNSUPPORTED, reason=str(ready))
        else:
            items[index] = _filled(item, ready, timings)
    return Plan(items)


def shard(cells: list[RunConfig], part: str | None) -> list[RunConfig]:
    """The cells of one part, "2/8", in the order of the grid. The same grid is cut in the same way on any machine."""
    if part is None:
        return cells
    number, of = map(int, part.split("/"))
    # by digest, so that no part holds all cells of one scheme
    ranked = sorted(cells, key=lambda cell: hashlib.sha256(cell.name.encode()).digest())
    chosen = {cell.name for cell in ranked[number - 1 :: of]}
    return [cell for cell in cells if cell.name in chosen]


def _look(cell: RunConfig) -> Item:
    """What the cell's folder tells."""
    rerun, run = cell.config["rerun"], Run(cell.folder)
    if is_finished(cell.folder):
        again = rerun == "all" or (rerun == "diverged" and run.summary["status"] == "diverged")
        return Item(cell, AGAIN if again else DONE, steps=run.summary.get("steps", 0))
    if not cell.folder.exists():
        return Item(cell, NEW)
    status = run.status
    if status == RUNNING:
        return Item(cell, RUNNING)
    behind = last_step(cell.folder)[0] if (cell.folder / "checkpoint").exists() else 0
    return Item(cell, AGAIN if status == "failed" else RESUMES if behind else NEW, behind=behind)


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps({k: v for k, v in config.items() if k not in IRRELEVANT}, sort_keys=True)


def _filled(item: Item, ready: Prepared, timings: Timings) -> Item:
    config, left = item.cell.config, ready.total - item.behind
    slots = {"adam": 3, "adamw": 3, "sgd": 1}.get(
        config["optimizer"], 2
    )  # weights, and what the optimizer keeps of each
    weights = ready.weight_bytes * (config["save_model"] + slots)
    seconds = timings.seconds(item.cell.choices, config, left)
    # Of a training step's time, half a millisecond is overhead and the rest goes with the bytes kept for the backward
    # pass: 1.3 ms per MB (an MLP and a CNN on MNIST, one core of an AMD EPYC). Good enough to tell long from short.
    guess = left * (0.5e-3 + 1.3e-9 * ready.saved_bytes)
    disk = ready.table_bytes + weights + 200_000  # steps.csv, epochs.csv, config.yaml
    return replace(item, steps=ready.total, disk=disk, seconds=seconds, work=guess if seconds is None else seconds)
