"""The Hydra application behind `normbench run`: from words to cells. What becomes of them is not Hydra's business."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from normbench.config import compose as config
from normbench.config import grid as sweeper
from normbench.config.messages import worded
from normbench.config.options import config_dir
from normbench.config.run_config import RunConfig
from normbench.errors import ConfigError

# Hydra passes nothing on from its task: what a single run composed, what a sweeper of others ran in this process
cells_composed: list[RunConfig | Exception] = []
cells_executed: list[RunConfig] = []


def cells(command: str, words: list[str], elsewhere: sweeper.Elsewhere | None = None) -> tuple[list[RunConfig], bool]:
    """The cells that `words` stand for, and whether they are a sweep. Raises ConfigError.

    Args:
        elsewhere: called where the words ask for one of Hydra's launchers; without it that is refused.
    """
    _require_known_flags(words)
    for found in (sweeper.cells_swept, cells_composed, cells_executed):
        found.clear()
    config.register()
    sweeper.register_sweeper()
    sweeper.elsewhere[:] = [elsewhere] if elsewhere else []
    with _hydra([f"normbench {command}", *_options_first(words)]):
        _application()
    for cell in cells_composed:
        if isinstance(cell, OmegaConfBaseException):
            raise ConfigError(worded(cell)) from cell
        if isinstance(cell, Exception):
            raise cell
    composed = [cell for cell in cells_composed if isinstance(cell, RunConfig)]
    return (list(sweeper.cells_swept), True) if sweeper.cells_swept else (composed, False)


def complete(arguments: list[str]) -> int:
    """Hydra's tab completion, for what follows `normbench run`."""
    config.register()
    sweeper.register_sweeper()
    line = os.environ.get("COMP_LINE", "")
    os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+)\s+(run|plan|describe|explain|verify|evaluate)\b", r"\1", line)
    with _hydra(["normbench", *arguments]):
        _application()
    return 0


def _task(cfg: DictConfig) -> float | None:
    """What Hydra calls: in a single run here, in a sweep through one of its launchers wherever that has put it."""
    chosen = HydraConfig.get()
    try:
        cell = config.to_cell(config.without_hydra(cfg), chosen.runtime.choices)
    except Exception as error:  # raised later: Hydra would print a line of its own
        cells_composed.append(error)
        return None
    if chosen.mode != RunMode.MULTIRUN:
        cells_composed.append(cell)
        return None
    cells_executed.append(cell)
    return _execute(cell)


def _execute(cell: RunConfig) -> float | None:
    """Train a cell of a sweep. Returns its validation accuracy, for sweepers that look for the best; 0 if it diverged.

    What goes wrong is in the cell's folder; raised here, it would end the sweep.
    """
    from normbench.errors import Unsupported
    from normbench.experiment import execute, record_failure, record_unsupported

    try:
        summary = execute(cell).summary
        return 0.0 if summary["status"] == "diverged" else summary.get("validation_accuracy")
    except Unsupported as error:
        record_unsupported(cell, str(error))
    except Exception as error:
        with suppress(Exception):
            record_failure(cell, f"{type(error).__name__}: {error}")
    return None


def _application() -> None:
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_task)()


@contextmanager
def _hydra(argv: list[str]) -> Iterator[None]:
    """Inside, Hydra reads `argv`, raises its errors instead of printing them, and they become ConfigErrors."""
    before, own = os.environ.get("HYDRA_FULL_ERROR"), sys.argv
    os.environ["HYDRA_FULL_ERROR"], sys.argv = "1", argv
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(worded(error)) from error
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
