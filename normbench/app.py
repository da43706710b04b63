"""The Hydra application behind `normbench run`: from words to trained cells, and Hydra's errors put in a line."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from normbench import config, console, sweeper
from normbench.cell import Cell, ConfigError, UserError
from normbench.listing import choices, config_dir, question
from normbench.runs import Locked, Run, Unwritable, make_folder

if TYPE_CHECKING:
    from normbench.experiment import Prepared

cells_composed: list[Cell | Exception] = []  # by a single run: Hydra passes nothing on from its task


def run(words: list[str]) -> int:
    """`normbench run WORDS`. Returns the exit code: 0, or 1 if a cell failed.

    Raises: ConfigError with a message for the user, or whatever went wrong in a single run.
    """
    cells, swept = _cells("run", words)
    if swept:
        return _sweep(cells)
    return _single(cells[0]) if cells else 0  # none after --cfg and the like: Hydra has printed what was asked for


def describe(words: list[str]) -> int:
    """`normbench describe WORDS`: the networks that `normbench run WORDS` would train. Raises ConfigError."""
    from normbench.description import describe, facts

    prepared = [_prepared(cell) for cell in _cells("describe", words)[0]]  # before anything is said
    for ready in prepared:
        cell = ready.cell
        model = ready.parts.model(ready.parts.scheme, ready.dataset.shape, len(ready.dataset.classes))
        layers = describe(model, ready.dataset.shape, cell.config["batch_size"])
        console.print_layers(cell, layers, facts(model, cell.config))
    return 0


def _cells(command: str, words: list[str]) -> tuple[list[Cell], bool]:
    """The cells that `words` stand for, and whether they are a sweep. Raises ConfigError."""
    _require_known_flags(words)
    sweeper.cells_swept.clear()
    cells_composed.clear()
    config.register()
    sweeper.register_sweeper()
    with _hydra([f"normbench {command}", *_options_first(words)]):
        _application()
    for cell in cells_composed:
        if isinstance(cell, OmegaConfBaseException):
            raise ConfigError(_worded(cell)) from cell
        if isinstance(cell, Exception):
            raise cell
    composed = [cell for cell in cells_composed if isinstance(cell, Cell)]
    return (list(sweeper.cells_swept), True) if sweeper.cells_swept else (composed, False)


def complete(arguments: list[str]) -> int:
    """Hydra's tab completion, for what follows `normbench run`."""
    config.register()
    sweeper.register_sweeper()
    line = os.environ.get("COMP_LINE", "")
    os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+)\s+(run|describe)\b", r"\1", line)
    with _hydra(["normbench", *arguments]):
        _application()
    return 0


def _task(cfg: DictConfig) -> None:
    try:
        cells_composed.append(config.to_cell(cfg, HydraConfig.get().runtime.choices))
    except Exception as error:  # raised later: Hydra would print a line of its own
        cells_composed.append(error)


def _application() -> None:
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_task)()


def _single(cell: Cell) -> int:
    from normbench.experiment import train

    run, finished = Run(cell.folder), cell.finished
    try:
        if not finished:
            ready = _prepared(cell)  # before anything is said: bad input gets its error and nothing else
            make_folder(cell.folder)
            with console.run_view(cell, ready.table_bytes) as tell:
                run = train(ready, tell)
    except (Locked, Unwritable) as error:
        raise UserError(str(error)) from error
    console.print_run(run, cell, finished)
    return 0


def _prepared(cell: Cell) -> Prepared:
    """`prepare_cell`; a cell asked for by itself that can't be trained is the user's mistake. Raises ConfigError."""
    from normbench.experiment import prepare_cell
    from normbench.norms import Unsupported

    try:
        return prepare_cell(cell)
    except Unsupported as error:
        raise ConfigError(str(error)) from error


def _sweep(cells: list[Cell]) -> int:
    from normbench import report
    from normbench.launch import examine, run_cells

    plan = examine(cells)
    study = cells[0].folder.parent
    try:
        make_folder(study)
    except Unwritable as error:
        raise UserError(str(error)) from error
    with console.sweep_view(cells) as view:
        try:
            outcome = run_cells(plan, view)
        finally:
            over = any(study.glob("*/summary.json"))
            built = report.build(study, question=question(study.name), jobs=None) if over else None
    console.print_outcome(outcome, len(cells))
    if built is not None:
        console.print_report(built)
    return 1 if outcome.failed else 0


@contextmanager
def _hydra(argv: list[str]) -> Iterator[None]:
    """Inside, Hydra reads `argv`, raises its errors instead of printing them, and they become ConfigErrors."""
    before, own = os.environ.get("HYDRA_FULL_ERROR"), sys.argv
    os.environ["HYDRA_FULL_ERROR"], sys.argv = "1", argv
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_worded(error)) from error
    finally:
        sys.argv = own
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _require_known_flags(words: list[str]) -> None:
    known = get_args_parser()._option_string_actions
    for word in words:
        flag = word.partition("=")[0]
        if word.startswith("-") and flag not in known:
            key = flag.lstrip("-").replace("-", "_")
            raise ConfigError(f"options are written key=value: got {word}. Did you mean {key}=...?")


def _options_first(words: list[str]) -> list[str]:
    """Hydra's parser can't read `norm=batch -m lr=1`: put key=value words last."""
    is_override = re.compile(r"[+~]{0,2}[\w./@:${}]+=").match
    return [w for w in words if not is_override(w)] + [w for w in words if is_override(w)]


def _worded(error: Exception) -> str:
    """Hydra's error in one or two lines: the rule, what came, what to type."""
    text = str(error).split("\nConfig search path")[0].strip()
    cause = str(error.__cause__ or "").splitlines()
    if match := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, choice = match.groups()
        return f"{group} is one of {', '.join(choices(group))}: got {choice}."
    if match := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", text):
        key = match[1].split("=")[0]
        if cause and "not in" not in cause[0] and "struct" not in cause[0]:
            return f"{cause[0]}"
        known = _keys()
        near = difflib.get_close_matches(key, known, 1) or difflib.get_close_matches(key.split(".")[-1], known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"there is no option {key}.{hint} See normbench run --help."
    if match := re.match(r"Error merging override (\S+)", text) or re.match(r"Error merging override '([^']+)'", text):
        return f"{match[1]}: {cause[0] if cause else text}"
    if "missing EQUAL" in text:
        word = re.search(r"override '([^']+)'", text)
        return f"options are written key=value: got {word[1] if word else text}. See normbench run --help."
    if isinstance(error, OverrideParseException) and "Ambiguous" not in text:
        key, _, value = error.override.partition("=")
        quoted = f"""'{key}="{"..." if '"' in value else value}"'"""
        return f"{error.override} can't be read. Brackets and quotes go in pairs; other signs need quotes: {quoted}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]} lists several values. To sweep over them: normbench run -m {match[1]}"
    return " ".join(text.split())


def _keys() -> list[str]:
    """All options by name: top-level ones, groups, and those of every group's files."""
    import yaml

    folder: Path = config_dir()
    keys = list(config.Schema.__dataclass_fields__)
    for group in config.GROUPS:
        for path in sorted((folder / group).glob("*.yaml")):
            keys += [f"{group}.{key}" for key in yaml.safe_load(path.read_bytes())]
    return list(dict.fromkeys(keys))
