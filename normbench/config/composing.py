"""Composing the cells of a grid: Hydra once per choice of options, and plain values after that.

Hydra takes 100 ms to compose a configuration and 5 ms to apply a value and resolve it; a grid has thousands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from normbench.config.compose import as_number, leaves, make_cell, plain, to_cell, use_floats, without_hydra
from normbench.config.run_config import RunConfig


@dataclass(frozen=True)
class _Base:
    """What cells with the same choice of options share."""

    cfg: DictConfig
    chosen: dict[str, Any]
    raw: dict[str, Any]  # before interpolation
    config: dict[str, Any]  # after it
    referred: set[str] | None  # options that others refer to; None if that can't be told


class Composer:
    """Turns the words of each cell into the cell that Hydra would compose.

    Args:
        master: the configuration of the whole sweep.
        axes: options, not groups, that take several values: no other may change between cells of the same choices.
    """

    def __init__(self, loader: Any, master: DictConfig, axes: Sequence[str]) -> None:
        self.loader, self.master, self.axes = loader, master, frozenset(axes)
        self.parser = OverridesParser.create(config_loader=loader)
        self.bases: dict[tuple[str, ...], _Base] = {}
        self.parsed: dict[str, Override] = {}

    def cell(self, words: Sequence[str]) -> RunConfig:
        """Raises ConfigError, or what Hydra raises."""
        own = [word for word in words if word.partition("=")[0] in self.axes]
        base = self._base(tuple(word for word in words if word.partition("=")[0] not in self.axes))
        ConfigLoaderImpl._apply_overrides_to_config([self._parse(word) for word in own], base.cfg)  # checks the type
        keys = [word.partition("=")[0] for word in own]
        if base.referred is None or base.referred & set(keys) or any("$" in word for word in own):
            return to_cell(base.cfg, base.chosen)
        raw, config = base.raw, dict(base.config)
        for key in keys:
            value = as_number(key, _value(base.cfg, key), base.chosen)
            raw, config = _with(raw, key, value), _with(config, key, value)
        return make_cell(raw, config, base.chosen)

    def _base(self, words: tuple[str, ...]) -> _Base:
        if words not in self.bases:
            composed = self.loader.load_sweep_config(self.master, list(words))
            cfg, chosen = without_hydra(composed), dict(composed.hydra.runtime.choices)
            use_floats(cfg, chosen)
            raw = plain(cfg, resolve=False)
            self.bases[words] = _Base(cfg, chosen, raw, plain(cfg), _referred(raw))
        return self.bases[words]

    def _parse(self, word: str) -> Override:
        if word not in self.parsed:
            [self.parsed[word]] = self.parser.parse_overrides([word])
        return self.parsed[word]


def is_axis(override: Override, groups: set[str]) -> bool:
    """May this word be applied to a composed configuration, again and again? Not if it adds, deletes or merges."""
    plain_value = not override.is_delete() and not override.is_add() and not override.is_force_add()
    values = override.sweep_iterator() if override.is_sweep_override() else []
    whole = all(not isinstance(value, dict) for value in values)  # a dictionary is merged into the one before
    key = override.key_or_group
    return override.is_sweep_override() and plain_value and whole and key not in groups and override.package is None


def _referred(raw: Mapping[str, Any]) -> set[str] | None:
    """The options that interpolations refer to: "${..eps}" in norm.norm.eps is norm.eps."""
    found: set[str] = set()
    for key, value in leaves(raw):
        for item in value if isinstance(value, list) else [value]:
            text = str(item)
            if "${" not in text:
                continue
            # the forms that our files use; of any other, nothing is assumed
            match = re.fullmatch(r"\$\{(\.*)([\w.]+)\}|\$\{oc\.select:()([\w.]+),\w+\}", text)
            if match is None or isinstance(value, list):
                return None
            dots, name = match[1] or "", match[2] or match[4]
            above = key.split(".")[: -len(dots)] if dots else []
            found.add(".".join([*above, name]))
    return found | {key.rpartition(".")[0] for key in found}


def _value(cfg: DictConfig, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _with(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """`tree` with another value at "model.hidden"; what does not change is shared, not copied."""
    name, _, below = key.partition(".")
    return {**tree, name: _with(tree[name], below, value) if below else value}
