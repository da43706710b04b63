"""Running a plan through one of Hydra's launchers: on other machines, or by other engines on this one.

Results are on a disk that all machines share, so what became of a run is read from its folder, whatever the launcher
says; repeating the command runs what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from normbench.config.compose import HydraSweep
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError, Unsupported
from normbench.runs import Run, is_finished, is_locked
from normbench.sweep.plan import AGAIN, Plan
from normbench.sweep.runner import Outcome, View, begin

SECONDS = 1.0  # between looks at the folders


def run_through_launcher(plan: Plan, view: View, sweep: HydraSweep) -> Outcome:
    """As `run_plan`. Raises ConfigError if the launcher itself failed before it started anything."""
    from normbench.experiment import forget, record_failure

    outcome, todo = begin(plan, view), [item.run_config for item in plan.todo]
    if not todo:
        return outcome
    for item in plan.todo:
        if item.status == AGAIN and is_finished(item.run_config.folder, item.run_config.identity):
            forget(item.run_config)
    begun, error = time.time(), "it was not run"
    with _watch_folders(todo, view):
        try:
            _launch(sweep, [sweep.words[run_config.folder] for run_config in todo])
        except Exception as cause:  # a worker was killed and took the launcher along, or a wrong setting
            message = f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
            if not any(_was_written(run_config, begun) for run_config in todo):
                raise ConfigError(f"the launcher failed: {message}") from cause
            error = f"its process died ({message})"
    for run_config in todo:
        if is_finished(run_config.folder, run_config.identity):
            outcome.ran += 1
            continue
        if not (run_config.folder / "error.json").exists() and _was_written(run_config, begun):
            record_failure(run_config, error)
        outcome.failed[run_config.name] = text = Run(run_config.folder).error or error
        view.failed(run_config, text)
    return outcome


def _was_written(run_config: RunConfig, since: float) -> bool:
    with suppress(OSError):
        return any(path.stat().st_mtime >= since for path in run_config.folder.iterdir())
    return False


@contextmanager
def _watch_folders(todo: list[RunConfig], view: View) -> Iterator[None]:
    """Shows what happens in the folders, in a thread: a launcher says nothing before it is done."""
    ended, waiting = threading.Event(), list(todo)

    def check() -> None:
        for run_config in list(waiting):
            if is_finished(run_config.folder, run_config.identity):
                waiting.remove(run_config)
                view.finished(Run(run_config.folder))
        view.update([one for one in waiting if is_locked(one.folder / ".lock")], 0)

    def watch() -> None:
        while not ended.wait(SECONDS):
            check()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        check()


class Job:
    """What Hydra's launchers and sweepers run, here or wherever they have put it: the run that its words stand for."""

    def __init__(self) -> None:
        self.executed: list[RunConfig] = []  # in this process

    def __call__(self, cfg: DictConfig) -> float | None:
        """Validation accuracy, for sweepers that look for the best; 0 if the run diverged.

        What goes wrong is in the run's folder; raised here, it would end the sweep.
        """
        from normbench.experiment import compose, execute, record_failure, record_unsupported

        job = HydraConfig.get()
        folders = [f"--config-dir={path.removeprefix('file://')}" for path in job.searchpath]
        run_config = compose([*folders, *job.overrides.task])
        self.executed.append(run_config)
        try:
            summary = execute(run_config).summary
            return 0.0 if summary["status"] == "diverged" else summary.get("validation_accuracy")
        except Unsupported as error:
            record_unsupported(run_config, str(error))
        except Exception as error:
            with suppress(Exception):
                record_failure(run_config, f"{type(error).__name__}: {error}")
        return None


class _NoCallbacks:
    """Hydra tells of each job's start and end: nobody listens."""

    def on_job_start(self, **about: Any) -> None: ...

    def on_job_end(self, **about: Any) -> None: ...


def _launch(sweep: HydraSweep, words: list[list[str]]) -> None:
    """Run jobs, each given by its words; returns when all are over."""
    context = HydraContext(config_loader=sweep.loader, callbacks=_NoCallbacks())  # type: ignore[arg-type]
    launcher = Plugins.instance().instantiate_launcher(context, Job(), sweep.config)
    launcher.launch(words, initial_job_idx=0)


def run_sweeper(sweep: HydraSweep) -> list[RunConfig]:
    """Let a sweeper of Hydra's, such as Optuna's, decide what is run. Returns the runs of this process."""
    job = Job()
    context = HydraContext(config_loader=sweep.loader, callbacks=_NoCallbacks())  # type: ignore[arg-type]
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=job, config=sweep.config)
    sweeper.sweep(sweep.arguments or [])
    return job.executed
