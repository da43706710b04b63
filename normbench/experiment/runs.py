"""Runs are trained to their end, alone or in a stack, and what becomes of them stands in their folders."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

import torch

from normbench.config.run_config import RunConfig
from normbench.experiment.parts import build, load_dataset, require_same_data
from normbench.experiment.prepare import Prepared, prepare_run
from normbench.experiment.run import Training, batches, record, recorded_failure, run_folder, set_up_torch
from normbench.instruments.stacked import StackedInstruments
from normbench.runs import Locked, Run, RunFolder, Unwritable, is_finished
from normbench.training.callbacks import OnProgress, Stop
from normbench.training.loop import Step, steps
from normbench.training.stack import LONGEST, Member, Stack

logger = logging.getLogger("normbench")
Ended = Callable[[RunConfig, Exception | None], None]


def execute(
    run_config: RunConfig,
    on_progress: OnProgress = lambda progress: None,
    stop: Stop = lambda: False,
    checked: bool = False,
) -> Run:
    """Train `run_config` to its end, or continue it, or find it finished.

    Args:
        checked: as for `prepare_run`.

    Raises:
        ConfigError, Unsupported: as `prepare_run`; nothing was written.
        Locked: another process is at it.
        Stopped: `stop` said so.
        Exception: whatever went wrong in training; it is in `error.json`, too.
    """
    if is_finished(run_config.folder, run_config.identity):
        require_same_data([run_config])
        return Run(run_config.folder)
    return train(prepare_run(run_config, checked), on_progress, stop)


def prepare_unfinished(run_config: RunConfig) -> Prepared | None:
    """`prepare_run`, for a run that is not over or is to be run again (`rerun=all`); None: its results stay."""
    over = is_finished(run_config.folder, run_config.identity)
    if over and run_config.config["rerun"] != "all":
        require_same_data([run_config])
        return None
    ready = prepare_run(run_config)
    if over:
        forget(run_config)
    return ready


def train(ready: Prepared, on_progress: OnProgress = lambda progress: None, stop: Stop = lambda: False) -> Run:
    """As `execute`, for a run that was prepared."""
    if not ready.fits:
        return train_alone(ready, on_progress, stop)
    errors: list[Exception | None] = []
    train_stacked([ready], lambda run_config, error: errors.append(error), on_progress, stop)
    if errors[0] is not None:
        raise errors[0]
    return Run(ready.run_config.folder)


def train_alone(ready: Prepared, on_progress: OnProgress, stop: Stop) -> Run:
    """As `train`, update by update."""
    set_up_torch(ready.run_config.config)
    with run_folder(ready) as folder, recorded_failure(folder):
        if not is_finished(folder.path, folder.identity):  # another process may have finished it meanwhile
            run = Training(ready, folder, on_progress, stop)
            run.begin()
            run.log.clock.start()
            start, config = run.step.index, ready.run_config.config
            examples = batches(config, ready.dataset, start, ready.total)
            for step in steps(run.model, examples, run.optimizer, start, run.update):
                if not run.after(step):
                    break
            run.finish()
    return Run(folder.path)


# ---- stacks: runs that train together


def execute_stacked(run_configs: Sequence[RunConfig], ended: Ended, stop: Stop = lambda: False) -> None:
    """As `execute`, several runs that can be stacked, see `sweep.plan`.

    Args:
        ended: called for each run when it is over, or failed, with what `execute` would have raised.
    """
    over = [one for one in run_configs if is_finished(one.folder, one.identity)]
    for run_config in over:
        ended(run_config, None)
    if len(over) == len(run_configs):
        return
    first, *others = (one for one in run_configs if one not in over)
    readies = [ready := prepare_run(first, checked=True)]
    for run_config in others:  # which differ in what needs no check
        parts = replace(ready.parts, instruments=build(run_config.config).instruments)
        dataset = load_dataset(run_config.config, parts).sharing_images(ready.dataset)
        readies.append(replace(ready, run_config=run_config, parts=parts, dataset=dataset))
    train_stacked(readies, ended, stop=stop)


def train_stacked(
    readies: Sequence[Prepared],
    ended: Ended,
    on_progress: OnProgress = lambda progress: None,
    stop: Stop = lambda: False,
) -> None:
    """As `execute_stacked`, for runs that were prepared. On a lack of memory in two halves, one after the other."""
    left = {ready.run_config.name: ready for ready in readies}

    def ended_once(run_config: RunConfig, error: Exception | None) -> None:
        del left[run_config.name]
        ended(run_config, error)

    why: Exception | None = None
    try:
        _train_stacked(readies, ended_once, on_progress, stop)
    except Exception as error:
        why = error.with_traceback(None)  # whose frames hold the tensors
    if why is None:
        return
    rest = list(left.values())
    if isinstance(why, torch.OutOfMemoryError) and len(rest) > 1:
        torch.cuda.empty_cache()
        for half in (rest[: len(rest) // 2], rest[len(rest) // 2 :]):
            train_stacked(half, ended_once, on_progress, stop)
        return
    logger.warning("%d runs can't be stacked and are trained one by one: %s: %s", len(rest), type(why).__name__, why)
    for ready in rest:
        try:
            train_alone(ready, on_progress, stop)
        except Exception as error:
            ended_once(ready.run_config, error)
        else:
            ended_once(ready.run_config, None)


def _train_stacked(readies: Sequence[Prepared], ended: Ended, on_progress: OnProgress, stop: Stop) -> None:
    set_up_torch(readies[0].run_config.config)
    by_start: dict[int, list[Training]] = {}
    with ExitStack() as folders:
        for ready in readies:
            try:
                folder = folders.enter_context(run_folder(ready))
                if is_finished(folder.path, folder.identity):
                    ended(ready.run_config, None)
                    continue
                with recorded_failure(folder):
                    run = Training(ready, folder, on_progress, stop)
                by_start.setdefault(run.step.index, []).append(run)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                ended(ready.run_config, error)
        for runs in by_start.values():
            _Together(runs, ended).train()


class _Together:
    """Runs in one stack, after equally many updates."""

    def __init__(self, runs: Sequence[Training], ended: Ended) -> None:
        self.runs, self.ended, self.open = runs, ended, dict(enumerate(runs))
        for run in runs:
            run.begin(len(runs))
        members = [Member(r.model, r.optimizer, r.update, r.ready.dataset.train, r.order, r.key) for r in runs]
        self.stack = Stack(members, runs[0].ready.run_config.config["batch_size"], runs[0].step.index)
        self.evaluated: dict[tuple[int, str], list[tuple[float, float]]] = {}
        self.measured = StackedInstruments(self.stack, [run.instruments for run in runs], self._measured)
        if all(run.ready.parts.scheme.statistics == "ema" for run in runs):
            for k, run in enumerate(runs):
                run.evaluate = partial(self.evaluate, k)  # type: ignore[method-assign]

    def train(self) -> None:
        losses, total, stack = None, self.runs[0].ready.total, self.stack
        while self.open:
            x, y = stack.batch() if stack.index < total else (None, None)
            for k, run in list(self.open.items()):
                batch = None if x is None or y is None else (x[k], y[k])
                self._after(k, run, Step(stack.index, batch, None if losses is None else losses[:, k]))
            self.measured.forget()
            if not self.open:
                return
            begin, updates = time.perf_counter(), 1
            while updates < LONGEST and not self.runs[0].due(stack.index + updates):
                updates += 1
            losses = stack.advance(updates).cpu()  # waits for the device
            self._share("training", time.perf_counter() - begin)

    def _after(self, k: int, run: Training, step: Step) -> None:
        """What happens in one of the runs between two updates; what goes wrong there concerns no other."""
        run.log.clock.start()
        error: Exception | None = None
        try:
            with recorded_failure(run.folder):
                if run.after(step) and step.index < run.ready.total:
                    return
                run.finish()
        except torch.OutOfMemoryError:
            raise
        except Exception as why:
            error = why
        finally:
            run.log.clock.stop()
        del self.open[k]
        self.measured.leave(k)
        self.ended(run.ready.run_config, error)

    def evaluate(self, k: int, split: str) -> tuple[float, float]:
        """Of run k; all are evaluated when the first of them asks."""
        key = self.stack.index, split
        if key not in self.evaluated:
            begin = time.perf_counter()
            self.evaluated = {key: self.stack.evaluate([run.splits[split] for run in self.runs])}
            self._share("evaluating", time.perf_counter() - begin, k)
        return self.evaluated[key][k]

    def _measured(self, k: int, instrument: str, seconds: float) -> None:
        self._share("measuring", seconds, k)
        for run in self.runs:
            run.instruments.cost[instrument] += seconds / len(self.runs)
        self.runs[k].instruments.cost[instrument] -= seconds

    def _share(self, activity: str, seconds: float, asked: int | None = None) -> None:
        """What was done for all is a part of each run's time; the clock of the one that `asked` has counted it all."""
        for run in self.runs:
            run.log.clock.add(activity, seconds / len(self.runs))
        if asked is not None:
            self.runs[asked].log.clock.add(activity, -seconds)


def record_failure(run_config: RunConfig, message: str, trace: str = "") -> None:
    """Give a run that left none its `error.json`: it was killed, or failed before its folder was made."""
    with suppress(OSError, Locked, Unwritable), RunFolder(run_config.folder, identity=run_config.identity) as folder:
        if is_finished(run_config.folder, run_config.identity):
            return
        if not (run_config.folder / "config.yaml").exists():
            folder.start(record(run_config))
        folder.fail(message, trace)


def forget(run_config: RunConfig) -> None:
    """Let a finished run be run again. Raises Locked."""
    with RunFolder(run_config.folder) as folder:
        folder.clear()


def record_unsupported(run_config: RunConfig, reason: str) -> None:
    """Give a run of a study that can't be run its folder, so that no table passes over it in silence."""
    # Locked: another sweep is writing the same
    with suppress(Locked), RunFolder(run_config.folder, identity=run_config.identity) as folder:
        folder.start(record(run_config))
        folder.finish({"status": "unsupported", "reason": reason})
