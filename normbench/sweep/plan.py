"""What a sweep is going to do: every run is checked before the first one starts. Writes nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from normbench.config.run_config import RunConfig, data_may_change, shared_words, swept
from normbench.errors import ConfigError, Unsupported
from normbench.runs import SIZES, Run, damage, last_step
from normbench.sweep.timing import Timings

if TYPE_CHECKING:
    from normbench.experiment import Prepared

# What can change neither whether a network can be trained nor how long that takes: runs that differ in these alone are
# prepared once.
IRRELEVANT = {"seed", "lr", "momentum", "weight_decay", "decay_norm_parameters", "growth", "warmup", "steps_at"}
IRRELEVANT |= {"study", "results_dir", "jobs", "shard", "rerun", "cell_timeout", "checkpoint_seconds", "save_model"}
# Runs that differ in these alone can be one stack; of the model also in how its weights start.
IN_A_STACK = {"seed", "lr", "momentum", "weight_decay", "rerun", "save_model", "checkpoint_seconds"}
# Stacks of small networks are trained in less time than their process measures and writes, which leaves the GPU to
# others; each process takes half a GiB of it.
ON_A_GPU = 4
DONE, RESUMES, NEW, AGAIN, UNSUPPORTED, RUNNING = "done", "resumes", "new", "again", "unsupported", "running"


@dataclass(frozen=True)
class Item:
    """One run of a plan.

    Args:
        status: done | resumes (from a checkpoint) | new | again (it failed, is damaged, or `rerun` asks for it) |
            unsupported | running (in another process).
        steps: of the whole run.
        steps_behind: of these, those that a checkpoint saves it from doing again, as far as its tables show.
        reason: why it is unsupported, or what is damaged.
        seconds: that it still takes; None where no earlier run tells.
        work: a measure of how long it takes, to begin with the longest.
        stack: runs that have it in common can be one stack; "": it is trained by itself.
        fits: so many runs in a stack, at most.
        why_alone: why it can't be stacked, where that was asked for.
    """

    run_config: RunConfig
    status: str
    steps: int = 0
    steps_behind: int = 0
    reason: str = ""
    seconds: float | None = None
    work: float = 0.0
    stack: str = ""
    fits: int = 1
    why_alone: str = ""

    @property
    def samples(self) -> int:
        return self.steps * self.run_config.config["batch_size"] * self.run_config.config["accumulate"]


@dataclass(frozen=True)
class Plan:
    """A sweep that was checked: `items` in the order of the grid, `todo` in that of running."""

    items: list[Item]

    def having(self, *statuses: str) -> list[Item]:
        return [item for item in self.items if item.status in statuses]

    @property
    def unsupported(self) -> dict[str, list[RunConfig]]:
        """The runs that can't be trained, by reason."""
        found: dict[str, list[RunConfig]] = {}
        for item in self.having(UNSUPPORTED):
            found.setdefault(item.reason, []).append(item.run_config)
        return found

    @cached_property
    def todo(self) -> list[Item]:
        """Seed by seed, so that every scheme has results early; within a seed the longest first."""
        todo = self.having(NEW, RESUMES, AGAIN, RUNNING)
        return sorted(todo, key=lambda item: (item.run_config.config["seed"], -item.work))

    @cached_property
    def tasks(self) -> list[tuple[Item, ...]]:
        """`todo` as it is run: stacks, of equal size where one can't hold all, and single runs."""
        groups: dict[str, list[Item]] = {}
        for item in self.todo:
            by_itself = not item.stack or item.status == RUNNING
            groups.setdefault(item.run_config.name if by_itself else item.stack, []).append(item)
        tasks = []
        for items in groups.values():
            size = math.ceil(len(items) / math.ceil(len(items) / items[0].fits))
            tasks += [tuple(items[i : i + size]) for i in range(0, len(items), size)]
        return tasks

    @property
    def alone(self) -> Counter[str]:
        """Why runs that were to be stacked can't be, with how many there are."""
        return Counter(item.why_alone for item in self.todo if item.why_alone)

    @cached_property
    def jobs(self) -> int:
        """How many tasks side by side: `jobs`, or one per core (and thread), or on a GPU at most ON_A_GPU."""
        return jobs_of(self.items[0].run_config)

    def seconds_left(self, names: Collection[str] | None = None) -> float | None:
        """How long the runs of these names, or all in `todo`, take side by side: no less than the longest of them.

        None while the time of one is unknown.
        """
        seconds = [item.seconds for item in self.todo if names is None or item.run_config.name in names]
        known = [one for one in seconds if one is not None]
        return max(sum(known) / self.jobs, *known) if known and len(known) == len(seconds) else None

    @cached_property
    def shared_words(self) -> list[str]:
        """The words that all runs have: said once, and not with every run."""
        return shared_words([item.run_config for item in self.items]) if len(self.items) > 1 else []

    @cached_property
    def swept(self) -> list[str]:
        return swept([item.run_config for item in self.items])

    def own_words(self, run_config: RunConfig) -> str:
        """What tells a run from the others of the sweep: every option that varies, be it at its default."""
        return " ".join(filter(None, map(run_config.word, self.swept))) or " ".join(run_config.words)


def jobs_of(run_config: RunConfig) -> int:
    jobs, device, threads = (run_config.config[key] for key in ("jobs", "device", "threads"))
    if jobs != "auto":
        return jobs
    cores = usable_cores()
    return max(1, min(cores // threads, cores if device == "cpu" else ON_A_GPU))


def usable_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_plan(run_configs: Iterable[RunConfig], timings: Timings | None = None, depth: int = SIZES) -> Plan:
    """Check every run. Raises ConfigError for the first one that nobody can have meant.

    Args:
        depth: how closely the files of finished runs are looked at, see `Run.check_seal`.
    """
    items = [_in_folder(run_config, depth) for run_config in run_configs]
    if own := [item.run_config for item in items if item.status == DONE and data_may_change(item.run_config.config)]:
        from normbench.experiment import require_same_data

        require_same_data(own)
    if all(item.status == DONE for item in items):
        return Plan(items)
    from normbench.experiment import prepare_run

    timings = timings or Timings()
    timings.learn_from(items[0].run_config.folder.parent)
    prepared: dict[str, Prepared | Unsupported] = {}
    for index, item in enumerate(items):
        if item.status == DONE:
            continue
        relevant = {k: v for k, v in item.run_config.config.items() if k not in IRRELEVANT}
        key = json.dumps(relevant, sort_keys=True)
        if key not in prepared:
            try:
                prepared[key] = prepare_run(item.run_config)
            except Unsupported as error:
                prepared[key] = error
            except ConfigError as error:
                raise ConfigError(f"{error} (in {' '.join(item.run_config.words)})") from error
        ready = prepared[key]
        if isinstance(ready, Exception):
            items[index] = replace(item, status=UNSUPPORTED, reason=str(ready))
        else:
            items[index] = _with_costs(item, ready, timings)
    return Plan(items)


def shard(run_configs: list[RunConfig], part: str | None) -> list[RunConfig]:
    """The runs of one part, "2/8", in the order of the grid. The same grid is cut in the same way on any machine.

    Raises: ConfigError for a part that is empty.
    """
    if part is None:
        return run_configs
    number, of = map(int, part.split("/"))
    # by digest, so that no part holds all runs of one scheme
    names = sorted((one.name for one in run_configs), key=lambda name: hashlib.sha256(name.encode()).digest())
    if not (chosen := set(names[number - 1 :: of])):
        raise ConfigError("this shard holds no run: the sweep has fewer runs than parts. Use fewer parts.")
    return [one for one in run_configs if one.name in chosen]


def _in_folder(run_config: RunConfig, depth: int) -> Item:
    """What the run's folder tells."""
    rerun, folder, run = run_config.config["rerun"], run_config.folder, Run(run_config.folder)
    if reason := damage(run, run_config.identity, depth):
        return Item(run_config, AGAIN, reason=reason)
    if run.summary:
        again = rerun == "all" or (rerun == "diverged" and run.summary["status"] == "diverged")
        return Item(run_config, AGAIN if again else DONE, steps=run.summary.get("steps", 0))
    if not folder.exists():
        return Item(run_config, NEW)
    if (status := run.status) == "running":
        return Item(run_config, RUNNING)
    behind = last_step(folder)[0] if (folder / "checkpoint").exists() else 0
    return Item(run_config, AGAIN if status == "failed" else RESUMES if behind else NEW, steps_behind=behind)


def _with_costs(item: Item, ready: Prepared, timings: Timings) -> Item:
    config, left = item.run_config.config, ready.total - item.steps_behind
    seconds = timings.seconds(item.run_config.choices, config, left)
    # Of a training step's time, half a millisecond is overhead and the rest goes with the bytes kept for the backward
    # pass: 1.3 ms per MB (an MLP and a CNN on MNIST, one core of an AMD EPYC). Good enough to tell long from short.
    work = left * (0.5e-3 + 1.3e-9 * ready.saved_bytes) if seconds is None else seconds
    stack = ""
    if ready.fits:
        same = {key: value for key, value in config.items() if key not in IN_A_STACK}
        same["model"] = {k: v for k, v in config["model"].items() if k not in ("init_scale", "init_std")}
        stack = json.dumps(same, sort_keys=True)
    run_config = item.run_config
    if ready.why_alone:
        run_config = replace(run_config, config={**config, "execute": "processes"})
    return replace(item, run_config=run_config, steps=ready.total, seconds=seconds, work=work, stack=stack,
                   fits=max(1, ready.fits), why_alone=ready.why_alone)  # fmt: skip
