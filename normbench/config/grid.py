"""Hydra's multirun, expanding a grid into cells and handing them to `launch`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins

Plugins.instance()  # before BasicSweeper is imported: Hydra's scan for plugins imports it, too, and must come first

from hydra._internal.core_plugins.basic_launcher import BasicLauncher  # noqa: E402
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from hydra.core.override_parser.types import Override  # noqa: E402

from normbench.config.composing import Composer, is_axis  # noqa: E402
from normbench.config.run_config import RunConfig  # noqa: E402
from normbench.config.schema import as_word  # noqa: E402
from normbench.errors import ConfigError  # noqa: E402

Launch = Callable[[list[RunConfig]], Any]  # runs cells through one of Hydra's launchers, and returns when they are over
Axes = dict[str, Override]  # option -> its values
Elsewhere = Callable[[list[RunConfig], Launch], None]

# Hydra passes nothing on from a sweeper to its caller: the cells of the last sweep, and who is called with them if they
# are to run through a launcher, which can be used only while the sweeper is at work.
cells_swept: list[RunConfig] = []
elsewhere: list[Elsewhere] = []


class GridSweeper(BasicSweeper):
    """Expands the whole grid and checks every cell of it; running them is not Hydra's business.

    Args:
        params: the axes that an experiment's file names, {"norm": "none,batch"}; the command line replaces them.
        also: further grids of the same file: each replaces or adds some axes, {"norm": "weight", "norm.init_images":
            500}. One whose own values the command line rules out (norm=batch) is left out.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        also: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.also = also or ()

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        groups = set(loader.list_groups(""))
        words: dict[Path, list[str]] = {}
        cells_swept.clear()
        for axes in self._grids(arguments):
            [grid] = self.split_arguments(list(axes.values()), None)
            named = [override.get_key_element() for override in axes.values() if is_axis(override, groups)]
            composer = Composer(loader, self.config, named)
            for chosen in grid:
                cell = composer.cell(chosen)
                if cell.folder not in words:
                    cells_swept.append(cell)
                    words[cell.folder] = list(chosen)
        launcher = self.launcher
        assert launcher is not None
        if not isinstance(launcher, BasicLauncher):
            if not elsewhere:
                raise ConfigError("hydra/launcher is for normbench run -m alone.")
            for take in elsewhere:
                take(list(cells_swept), lambda some: launcher.launch([words[c.folder] for c in some], 0))

    def _grids(self, arguments: list[str]) -> Iterator[Axes]:
        """The axes of each grid. One given on the command line replaces that of the experiment's file."""
        given, first = self._axes(arguments), self._axes(self._parse_config())
        yield {**first, **given}
        for extra in self.also:
            own = self._axes([f"{key}={as_word(value)}" for key, value in extra.items()])
            if all(_values(own[key]) <= _values(given[key]) for key in own.keys() & given.keys()):
                yield {**first, **given, **own}

    def _axes(self, words: list[str]) -> Axes:
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return {override.key_or_group: override for override in parser.parse_overrides(words)}


def _values(override: Override) -> set[str]:
    if override.is_sweep_override():
        return set(override.sweep_string_iterator())
    return {override.get_value_element_as_str()}


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
