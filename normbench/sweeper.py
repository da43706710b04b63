"""Hydra's multirun, expanding a grid into cells and handing them to `launch`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins

Plugins.instance()  # before BasicSweeper is imported: Hydra's scan for plugins imports it, too, and must come first

from hydra._internal.core_plugins.basic_launcher import BasicLauncher  # noqa: E402
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402

from normbench.cell import Cell, ConfigError  # noqa: E402
from normbench.composing import Composer, is_axis  # noqa: E402

Launch = Callable[[list[Cell]], Any]  # runs cells through one of Hydra's launchers, and returns when they are over
Elsewhere = Callable[[list[Cell], Launch], None]

# Hydra passes nothing on from a sweeper to its caller: the cells of the last sweep, and who is called with them if they
# are to run through a launcher, which can be used only while the sweeper is at work.
cells_swept: list[Cell] = []
elsewhere: list[Elsewhere] = []


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
        groups = set(loader.list_groups(""))
        named = [override.get_key_element() for override in axes.values() if is_axis(override, groups)]
        composer = Composer(loader, self.config, named)
        cells = [composer.cell(words) for words in grid]
        words = {cell.folder: list(words) for cell, words in zip(cells, grid, strict=True)}
        cells_swept[:] = {cell.folder: cell for cell in cells}.values()
        launcher = self.launcher
        assert launcher is not None
        if not isinstance(launcher, BasicLauncher):
            if not elsewhere:
                raise ConfigError("hydra/launcher is for normbench run -m alone.")
            for take in elsewhere:
                take(list(cells_swept), lambda some: launcher.launch([words[c.folder] for c in some], 0))


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
    # What knows the class by name is written down; other processes, to which launchers send the class, find it here.
    GridSweeper.__module__ = __name__
