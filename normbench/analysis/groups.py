"""A study in cells: runs that differ in the seed alone. Cells that differ in the scheme alone may be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from normbench.analysis.entries import Entry, read_run, tell_data_apart
from normbench.runs import Study, Unreadable

# The settings that a reader asks for first, in this order; any other that varies follows.
MAIN: tuple[str, ...] = ("model", "dataset", "optimizer", "lr", "batch_size", "epochs", "max_steps", "max_samples")
MAIN += ("schedule", "lr_scaling", "clip_norm", "accumulate", "weight_decay", "decay_norm_parameters", "momentum")
MAIN += ("model.activation", "model.init", "model.dropout", "device", "threads")

# The order of legends and rows: every scheme of configs/norm.
KNOWN: tuple[str, ...] = ("none", "batch", "layer", "weight", "weight_mean_only", "selu", "group", "instance", "rms")
KNOWN += ("batch_renorm", "mean_only", "noisy_batch", "ghost_batch", "layer2d", "weight_standardization")
KNOWN += ("dynamic_tanh",)

Setting = tuple[tuple[str, Any], ...]  # (("model", "mlp"), ("batch_size", 4)): what varies besides scheme and seed


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs of one scheme in one setting, one per seed."""

    scheme: str
    setting: Setting
    entries: tuple[Entry, ...]

    def having(self, *statuses: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.status in statuses]


@dataclass(frozen=True, eq=False)
class Cells:
    """A whole study: `settings[setting][scheme]` is a cell.

    `constant` holds what all runs share, `varying` the names of what differs besides scheme and seed,
    `foreign` the folders that hold no readable run (name -> why), `repeated` the runs left out because another one
    has the same configuration and seed.
    """

    folder: Path
    entries: tuple[Entry, ...]
    settings: dict[Setting, dict[str, Cell]]
    schemes: tuple[str, ...]
    varying: tuple[str, ...]
    constant: dict[str, Any]
    foreign: dict[str, str] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()

    @property
    def synthetic(self) -> bool:
        return any(entry.synthetic for entry in self.entries)


def read(study: Study) -> Cells:
    """Group a study's runs. Raises FileNotFoundError if none of its folders holds a run that can be read."""
    entries, foreign = [], {}
    for run in study:
        try:
            entries.append(read_run(run))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            name = "" if isinstance(error, Unreadable) else f"{type(error).__name__}: "
            foreign[run.folder.name] = f"{name}{error}".splitlines()[0]
    if not entries:
        raise FileNotFoundError(
            f"{study.folder} holds no run that can be read: {next(iter(foreign.values()), 'empty')}"
        )
    tell_data_apart(entries)
    varying = _once(entries, [key for key in _keys(entries) if key != "norm" and _varies(key, entries)])
    inside = [key for key in varying if key.startswith("norm.")]  # these name the scheme, the rest the setting
    varying = [key for key in varying if key not in inside]

    by_choice: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_choice[entry.settings["norm"]].append(entry)
    own = {choice: [key for key in inside if _varies(key, group)] for choice, group in by_choice.items()}
    groups: dict[Setting, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        choice = entry.settings["norm"]
        options = [f"{key.removeprefix('norm.')}={show(entry.settings.get(key))}" for key in own[choice]]
        entry.scheme = " ".join([choice, *options])
        groups[tuple((key, entry.settings.get(key)) for key in varying)][entry.scheme].append(entry)
    settings: dict[Setting, dict[str, Cell]] = {}
    repeated: list[str] = []
    for setting in sorted(groups, key=lambda s: [_sortable(value) for _, value in s]):
        cells = groups[setting]
        settings[setting] = {scheme: _cell(scheme, setting, cells[scheme], repeated) for scheme in order(cells)}
    constant = {key: entries[0].settings[key] for key in ["norm"] if not _varies(key, entries)} | _constant(entries)
    schemes = order({entry.scheme for entry in entries})
    return Cells(
        study.folder, tuple(entries), settings, tuple(schemes), tuple(varying), constant, foreign, tuple(repeated)
    )


def order(schemes: Iterable[str]) -> list[str]:
    """Known schemes first, in their fixed order, then others by name; a scheme's variants, "batch eps=0.1", with it."""

    def place(name: str) -> tuple[int, str]:
        scheme = name.partition(" ")[0]
        return KNOWN.index(scheme) if scheme in KNOWN else len(KNOWN), name

    return sorted(set(schemes), key=place)


def label(setting: Setting, otherwise: str = "all runs") -> str:
    """(("model", "mlp"), ("batch_size", 4)) -> "mlp, batch size 4"."""
    bare = ("model", "dataset", "optimizer")
    words = [str(v) if k in bare else f"{k.rpartition('.')[2].replace('_', ' ')} {show(v)}" for k, v in setting]
    return ", ".join(words) or otherwise


def _keys(entries: Sequence[Entry]) -> list[str]:
    known = dict.fromkeys(key for entry in entries for key in entry.settings)
    return [*(key for key in MAIN if key in known), *(key for key in known if key not in MAIN)]


def _varies(key: str, entries: Iterable[Entry]) -> bool:
    """More than one value; for an option inside a group, among runs with the same choice of that group."""
    group = key.partition(".")[0] if "." in key else ""
    values: dict[Any, set[str]] = defaultdict(set)
    for entry in entries:
        values[entry.settings.get(group)].add(repr(entry.settings.get(key)))
    return any(len(options) > 1 for options in values.values())


def _once(entries: Sequence[Entry], keys: Sequence[str]) -> list[str]:
    """`keys` without those inside parts that only follow an option: model.build.hidden refers to model.hidden."""

    def kinds(names: Sequence[str]) -> int:
        return len({tuple(repr(entry.settings.get(name)) for name in names) for entry in entries})

    kept = []
    for key in keys:
        group = key.partition(".")[0]
        options = [
            group,
            *(other for other in keys if other.partition(".")[0] == group and not _is_part(other, entries)),
        ]
        if not _is_part(key, entries) or kinds([*options, key]) > kinds(options):
            kept.append(key)
    return kept


def _is_part(key: str, entries: Sequence[Entry]) -> bool:
    """Inside something that is built, or all of it, rather than an option that it is built from."""
    return key.count(".") > 1 or any("_target_" in str(entry.settings.get(key)) for entry in entries)


def _constant(entries: Sequence[Entry]) -> dict[str, Any]:
    result = {}
    for key in _keys(entries):
        values = {repr(e.settings[key]): e.settings[key] for e in entries if key in e.settings}
        hidden = key.startswith("norm.") or key.endswith(".name") or _is_part(key, entries)
        if len(values) == 1 and not hidden and (value := next(iter(values.values()))) is not None:
            result[key] = value
    return result


def _cell(scheme: str, setting: Setting, entries: Sequence[Entry], repeated: list[str]) -> Cell:
    """One entry per seed, the furthest one: a copied folder must not count as a second seed."""
    rank = {"complete": 0, "diverged": 1, "unsupported": 2, "failed": 3}
    by_seed: dict[Any, Entry] = {}
    for entry in sorted(entries, key=lambda e: (_sortable(e.seed), rank.get(e.status, 4), e.name)):
        if entry.seed in by_seed:
            repeated.append(entry.name)
        by_seed.setdefault(entry.seed, entry)
    return Cell(scheme, setting, tuple(by_seed.values()))


def _sortable(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def show(value: Any) -> str:
    """A configured value as a person would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)
