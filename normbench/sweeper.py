"""Hydra's multirun, expanding a grid into cells and handing them to `launch`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins

Plugins.instance()  # before BasicSweeper is imported: Hydra's scan for plugins imports it, too, and must come first

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402

from normbench.cell import Cell  # noqa: E402
from normbench.config import to_cell  # noqa: E402

cells_swept: list[Cell] = []  # by the last sweep: Hydra passes nothing on from a sweeper to its caller


class GridSweeper(BasicSweeper):
    """Expands the whole grid and checks every cell of it; running them is not Hydra's business."""

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        # An axis given on the command line replaces that of the experiment's file.
        axes = {override.key_or_group: override for override in parser.parse_overrides(self._parse_config())}
        axes.update({override.key_or_group: override for override in parser.parse_overrides(arguments)})
        [grid] = self.split_arguments(list(axes.values()), None)
        composed = [loader.load_sweep_config(self.config, list(words)) for words in grid]
        cells = [to_cell(cfg, cfg.hydra.runtime.choices) for cfg in composed]
        cells_swept[:] = {cell.folder: cell for cell in cells}.values()


def register_sweeper() -> None:
    """Make `hydra/sweeper: normbench` known. Hydra takes plugins only from modules below `hydra_plugins`."""
    name = "hydra_plugins.normbench"
    if name in sys.modules:
        return
    try:
        importlib.import_module("hydra_plugins")  # a namespace package, there if some plugin of Hydra's is installed
    except ModuleNotFoundError:
        sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    module: Any = ModuleType(name)
    module.GridSweeper = GridSweeper
    GridSweeper.__module__ = name
    sys.modules[name] = module
    sys.modules["hydra_plugins"].normbench = module  # type: ignore[attr-defined]
    Plugins.instance().register(GridSweeper)
