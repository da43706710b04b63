"""`normbench run`, `plan` and `describe`: what becomes of the cells that the words stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normbench.commands import console
from normbench.config import app
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError, Stopped, UserError
from normbench.runs import Locked, Run, Unwritable, is_finished, make_folder
from normbench.sweep.signals import requests_to_stop

if TYPE_CHECKING:
    from normbench.config.grid import Launch
    from normbench.experiment import Prepared
    from normbench.sweep.plan import Plan
    from normbench.sweep.runner import Outcome, View


def run(words: list[str]) -> int:
    """`normbench run WORDS`. Returns the exit code: 0, or 1 if a cell failed.

    Raises: ConfigError with a message for the user, or whatever went wrong in a single run.
    """
    codes: list[int] = []
    cells, swept = app.cells("run", words, lambda found, launch: codes.append(_sweep(found, launch)))
    if codes:
        return codes[0]
    if swept:
        return _sweep(cells)
    if app.cells_executed:  # by a sweeper of others
        return _report(
            app.cells_executed[0], 1 if any(not is_finished(cell.folder) for cell in app.cells_executed) else 0
        )
    return _single(cells[0]) if cells else 0  # none after --cfg and the like: Hydra has printed what was asked for


def plan(words: list[str], as_json: bool) -> int:
    """`normbench plan WORDS`: what `normbench run -m WORDS` would do. Writes nothing. Raises ConfigError."""
    from normbench.commands import plan as planning
    from normbench.sweep.plan import examine, shard

    cells, _ = app.cells("plan", words if {"-m", "--multirun"} & set(words) else ["-m", *words], lambda *_: None)
    if not cells:
        return 0
    found = examine(shard(cells, cells[0].config["shard"]))
    (planning.print_json if as_json else planning.print_plan)(found)
    return 0


def describe(words: list[str]) -> int:
    """`normbench describe WORDS`: the networks that `normbench run WORDS` would train. Raises ConfigError."""
    from normbench.norms.describe import describe, facts

    prepared = [_prepared(cell) for cell in app.cells("describe", words)[0]]  # before anything is said
    for ready in prepared:
        cell = ready.cell
        model = ready.parts.model(ready.parts.scheme, ready.dataset.shape, len(ready.dataset.classes))
        layers = describe(model, ready.dataset.shape, cell.config["batch_size"])
        console.print_layers(cell, layers, facts(model, cell.config))
    return 0


def _single(cell: RunConfig) -> int:
    from normbench.experiment import train

    run, finished = Run(cell.folder), is_finished(cell.folder) and cell.config["rerun"] != "all"
    try:
        if not finished:
            ready = _prepared(cell)  # before anything is said: bad input gets its error and nothing else
            _clear(cell)
            with console.run_view(cell, ready.table_bytes) as tell, requests_to_stop() as signals:
                run = train(ready, tell, lambda: bool(signals))
    except (Locked, Unwritable) as error:
        raise UserError(str(error)) from error
    except Stopped as error:
        raise KeyboardInterrupt from error
    console.print_run(run, cell, finished)
    return 0


def _clear(cell: RunConfig) -> None:
    """Make the folder, and if the run is to be done again, remove what it left. Raises Locked or Unwritable."""
    from normbench.experiment import forget

    make_folder(cell.folder)
    if is_finished(cell.folder):
        forget(cell)


def _prepared(cell: RunConfig) -> Prepared:
    """`prepare_cell`; a cell asked for by itself that can't be trained is the user's mistake. Raises ConfigError."""
    from normbench.errors import Unsupported
    from normbench.experiment import prepare_cell

    try:
        return prepare_cell(cell)
    except Unsupported as error:
        raise ConfigError(str(error)) from error


def _sweep(cells: list[RunConfig], launch: Launch | None = None) -> int:
    """Run a sweep here, or through `launch`, one of Hydra's launchers."""
    from normbench.commands.live import print_outcome, sweep_view
    from normbench.sweep import pool as workers
    from normbench.sweep.plan import examine, shard

    cells = shard(cells, cells[0].config["shard"])
    if not cells:
        raise ConfigError("this shard holds no run: the sweep has fewer runs than parts. Use fewer parts.")
    if launch is None and not all(is_finished(cell.folder) for cell in cells):
        workers.start_server()  # imports torch meanwhile
    looked = examine(cells)
    study = cells[0].folder.parent
    try:
        make_folder(study)
    except Unwritable as error:
        raise UserError(str(error)) from error
    try:
        with sweep_view(looked) as view:
            outcome = _run(looked, view, launch)
    except KeyboardInterrupt:
        _report(cells[0], 130)
        raise
    print_outcome(outcome, len(cells))
    return _report(cells[0], 1 if outcome.failed else 0)


def _run(plan: Plan, view: View, launch: Launch | None) -> Outcome:
    from normbench.sweep.launcher import run_elsewhere
    from normbench.sweep.runner import run_cells

    return run_cells(plan, view) if launch is None else run_elsewhere(plan, view, launch)


def _report(cell: RunConfig, code: int) -> int:
    """Build the report of the cell's study, if there is a run to report on. Returns `code`."""
    from normbench import report
    from normbench.claims.report import answers
    from normbench.config.options import question

    study = cell.folder.parent
    if any(study.glob("*/summary.json")):
        try:
            built = report.build(study, question=question(study.name), jobs=None, extra=answers(study.name))
            console.print_report(built)
        except OSError as error:  # a full disk: the runs are what matters
            raise UserError(f"the runs are over, but the report can't be written: {error}.") from error
    return code
