"""A study in groups: runs that differ in the seed alone. Groups that differ in the scheme alone may be compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.runs import Run, Study
from normbench.runs.study import MAIN, is_target, keys, varies

if TYPE_CHECKING:
    import pandas as pd

# The order of legends and rows: every scheme of configs/norm.
KNOWN: tuple[str, ...] = ("none", "batch", "layer", "weight", "weight_mean_only", "selu", "group", "instance", "rms")
KNOWN += ("batch_renorm", "mean_only", "noisy_batch", "ghost_batch", "layer2d", "weight_standardization")
KNOWN += ("dynamic_tanh", "dynamic_erf", "variance_only", "switchable")

STATUSES = ("complete", "diverged", "unsupported", "failed", "running", "interrupted")
OVER = ("complete", "diverged")  # with a result
Setting = tuple[tuple[str, Any], ...]  # (("model", "mlp"), ("batch_size", 4)): what varies besides scheme and seed


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one scheme in one setting, one per seed.

    Args:
        runs: their rows of `Study.all_columns`, in order of the seed.
        members: the same runs in the same order, for what is in their tables.
    """

    scheme: str
    setting: Setting
    runs: pd.DataFrame
    members: tuple[Run, ...]

    @property
    def values(self) -> Mapping[str, Any]:
        """What all of them are configured with, by option name; not the seed."""
        return self.members[0].values

    @cached_property
    def statuses(self) -> tuple[str, ...]:
        return tuple(self.runs["status"])

    @cached_property
    def each_seed(self) -> tuple[Any, ...]:
        """The seed of each of `members`."""
        return tuple(run.seed for run in self.members)

    def having(self, *statuses: str) -> list[Run]:
        """The members of these statuses."""
        return [run for run, status in zip(self.members, self.statuses, strict=True) if status in statuses]

    def count(self, *statuses: str) -> int:
        return sum(status in statuses for status in self.statuses)

    def seeds(self, *statuses: str) -> set[Any]:
        """Of the runs of these statuses; of all without any."""
        columns = zip(self.each_seed, self.statuses, strict=True)
        return {seed for seed, status in columns if status in statuses or not statuses}

    def with_seeds(self, seeds: Collection[Any]) -> Group:
        """Those of its runs that have one of `seeds`."""
        kept = [seed in seeds for seed in self.each_seed]
        if all(kept):
            return self
        return replace(self, runs=self.runs[kept], members=tuple(compress(self.members, kept)))

    def missing(self, scheme: str) -> Group:
        """What stands for a scheme that has no run in this setting."""
        return replace(self.with_seeds(()), scheme=scheme)

    @property
    def at_chance(self) -> int:
        """How many have finished no better than a guess."""
        return sum(bool(run.summary.get("at_chance")) for run in self.having("complete"))

    def accuracies(self, column: str = "test_accuracy") -> dict[Any, float]:
        """Seed -> accuracy of the runs that are over: a diverged run counts at chance, 1 / classes.

        So that a scheme is not judged by the runs that it survived.
        """
        found = self.numbers(column, *OVER)
        if diverged := self.seeds("diverged"):
            classes = self.numbers("dataset.classes", *OVER)
            found |= {seed: 1 / classes.get(seed, max(classes.values())) for seed in diverged if classes}
        return {seed: found[seed] for seed in self.each_seed if seed in found}

    @property
    def diverged(self) -> str:
        """ "2 of 5 diverged"; empty where none has."""
        n = self.count("diverged")
        return f"{n} of {len(self.members)} diverged" if n else ""

    def numbers(self, column: str, *statuses: str) -> dict[Any, float]:
        """Seed -> a number of the summary, of runs of these statuses (complete ones) that have it."""
        if column not in self.runs:
            return {}
        values = self.runs[column]
        if values.dtype == object:
            import pandas as pd

            values = pd.to_numeric(values, errors="coerce")
        wanted = statuses or ("complete",)
        columns = zip(self.each_seed, self.statuses, values.tolist(), strict=True)
        found = {seed: float(value) for seed, status, value in columns if status in wanted}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}


@dataclass(frozen=True, eq=False)
class Groups:
    """A whole study: `settings[setting][scheme]` is a group.

    `runs` is `Study.all_columns` with the column `scheme`; `members` the same runs in the same order; `varying` the
    names of what differs besides scheme and seed; `constant` what all runs share; `configured` is `Study.settings`
    (name -> option -> value); `unreadable` the folders that hold no readable run (name -> why); `repeated` the runs
    left out of the groups because another one has the same configuration and seed.
    """

    folder: Path
    runs: pd.DataFrame
    members: tuple[Run, ...]
    settings: dict[Setting, dict[str, Group]]
    schemes: tuple[str, ...]
    varying: tuple[str, ...]
    constant: dict[str, Any]
    configured: dict[str, dict[str, Any]]
    unreadable: dict[str, str] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()

    @property
    def groups(self) -> list[Group]:
        return [group for by_scheme in self.settings.values() for group in by_scheme.values()]

    @property
    def synthetic(self) -> bool:
        return any(map(is_synthetic, self.members))

    def scheme_of(self, run: Run) -> str:
        return str(self.runs.at[run.name, "scheme"])


def read(study: Study) -> Groups:
    """Group a study's runs. Raises FileNotFoundError if none of its folders holds a run that can be read."""
    import pandas as pd

    settings = study.settings
    if not settings:
        why = next(iter(study.unreadable.values()), "empty")
        raise FileNotFoundError(f"{study.folder} holds no run that can be read: {why}")
    inside = [key for key in study.varied if key.startswith("norm.")]  # these name the scheme, the rest the setting
    varying = tuple(key for key in study.varied if key not in inside)
    by_choice: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for values in settings.values():
        by_choice[values["norm"]].append(values)
    own = {choice: [key for key in inside if varies(key, rows)] for choice, rows in by_choice.items()}
    scheme = {
        name: " ".join([
            values["norm"], *(f"{key.removeprefix('norm.')}={show(values.get(key))}" for key in own[values["norm"]])
        ])
        for name, values in settings.items()
    }  # fmt: skip
    places: dict[Setting, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, values in settings.items():
        places[tuple((key, values.get(key)) for key in varying)][scheme[name]].append(name)
    runs = study.all_columns.assign(scheme=pd.Series(scheme))
    members = study.members
    repeated: list[str] = []

    def group(of: str, setting: Setting, names: Sequence[str]) -> Group:
        kept = one_per_seed(runs.loc[names], repeated)
        return Group(of, setting, runs.loc[kept], tuple(members[name] for name in kept))

    ordered = sorted(places, key=lambda setting: [_by_size(value) for _, value in setting])
    return Groups(
        study.folder,
        runs,
        tuple(members.values()),
        {
            setting: {of: group(of, setting, places[setting][of]) for of in order(places[setting])}
            for setting in ordered
        },
        tuple(order(scheme.values())),
        varying,
        _constant(list(settings.values())),
        settings,
        study.unreadable,
        tuple(repeated),
    )


def one_per_seed(runs: pd.DataFrame, repeated: list[str]) -> list[str]:
    """The names of the runs, one per seed, the furthest one: a copied folder must not count as a second seed."""
    names: dict[Any, str] = {}
    columns = zip(runs.index, runs["seed"].tolist(), runs["status"], strict=True)
    places = [(_by_size(seed), min(STATUSES.index(status), 4), name, seed) for name, seed, status in columns]
    for *_, name, seed in sorted(places, key=lambda place: place[:3]):
        if seed in names:
            repeated.append(name)
        names.setdefault(seed, name)
    return list(names.values())


def is_synthetic(run: Run) -> bool:
    data = run.summary.get("dataset") or {}
    return bool(data.get("synthetic", run.values.get("dataset") == "synthetic"))


def order(schemes: Iterable[str]) -> list[str]:
    """Known schemes first, in their fixed order, then others by name; a scheme's variants, "batch eps=0.1", with it."""

    def place(name: str) -> tuple[int, str]:
        scheme = name.partition(" ")[0]
        return KNOWN.index(scheme) if scheme in KNOWN else len(KNOWN), name

    return sorted(set(schemes), key=place)


def label(setting: Setting, otherwise: str = "all runs") -> str:
    """(("model", "mlp"), ("batch_size", 4), ("max_steps", None)) -> "mlp, batch size 4"; null is left out."""
    bare = ("model", "dataset", "optimizer")
    said = tuple(item for item in setting if item[1] is not None) or setting
    words = [str(v) if k in bare else f"{k.rpartition('.')[2].replace('_', ' ')} {show(v)}" for k, v in said]
    return ", ".join(words) or otherwise


def without(setting: Setting, *names: str) -> Setting:
    return tuple(item for item in setting if item[0] not in names)


def show(value: Any) -> str:
    """A configured value as a person would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _constant(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all runs share, without the options of a norm and what is built from others."""
    result = {} if varies("norm", rows) else {"norm": rows[0]["norm"]}
    for key in keys(rows):
        values = {repr(row[key]): row[key] for row in rows if key in row}
        hidden = key.startswith("norm.") or key.endswith(".name") or is_target(key, rows)
        if len(values) == 1 and not hidden and (value := next(iter(values.values()))) is not None:
            result[key] = value
    return result


def _by_size(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before words."""
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))


__all__ = ["MAIN", "STATUSES", "Group", "Groups", "Setting", "label", "order", "read", "show", "without"]
