"""From words on the command line to run configs, through Hydra's public interface: its parser of words, and `compose`.

Hydra composes once per choice of groups, which takes it 100 ms; single values, of which a grid has thousands, are then
checked and put in their places here. Every word is checked before Hydra sees it: what it does with one that makes no
sense is anything from a silent guess to 130 lines of traceback.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, RangeSweep
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from normbench.config.messages import message, not_one_of, unknown_option
from normbench.config.options import GROUPS, choices, config_dir, top_level, usual_choices
from normbench.config.run_config import (
    INSTRUMENTS,
    RunConfig,
    as_word,
    command,
    leaves,
    make_run_config,
    quoted,
    replaced,
    study_name,
)
from normbench.config.schema import accepted, check_together
from normbench.errors import ConfigError, UserError

Device = Callable[[str], str]  # device=auto -> the one that is there; raises ConfigError where there is none
Axes = dict[str, list[str]]  # option -> words that give it a value; in a sweep there may be several

# Options that the library itself reads, whatever the group's `_target_`, which is given all others.
COMMON = {
    "norm": {"name", "placement", "statistics", "init_images"},
    "model": {"name", "init", "init_std", "init_scale"},
    "dataset": {"name", "validation", "split_seed", "draw_seed", "train_fraction", "scale", "augment", "whiten",
                "binarize", "label_noise"},
}  # fmt: skip
# All of Hydra's own options that there are here.
HYDRA = re.compile(r"hydra[./](launcher|sweeper)(\..+)?")
USUAL: dict[str, Any] = {  # what Hydra's part is where nobody asks for anything else
    "mode": None,
    "runtime": {"choices": {"hydra/sweeper": "normbench", "hydra/launcher": "basic"}},
    "sweeper": {"params": None, "also": None, "extend": None, "confirm": None},
}
MOST = 20_000  # runs of a sweep
_log = logging.getLogger(__name__)
_LOCK = threading.RLock()  # Hydra has one state for the whole process


@dataclass
class SweeperSchema:
    """`hydra.sweeper`: `params` is how an experiment file says what to sweep over; `also`: further grids; `extend` and
    `confirm`: see `Further`.
    """

    _target_: str = "normbench"  # none of Hydra's: grids are expanded here
    params: dict[str, str] | None = None
    also: list[dict[str, Any]] | None = None
    extend: list[str] | None = None
    confirm: str | None = None


@dataclass(frozen=True)
class HydraSweep:
    """What one of Hydra's launchers or sweepers needs.

    Args:
        config: the configuration of the sweep, with Hydra's part.
        loader: composes each job from `config` and its words.
        words: folder of each run config -> the words that compose it.
        arguments: what the user typed, for a sweeper of others, which decides itself what is run; else None.
    """

    config: DictConfig
    loader: Any
    words: dict[Path, list[str]]
    arguments: list[str] | None = None


@dataclass(frozen=True)
class Further:
    """How a sweep goes on by itself when its grids are over; `sweep.rounds` decides with which runs.

    Args:
        extends: to learning rates beyond those of the grid, where the best lies at its edge (`extend: [lr]`).
        confirm: words that each give a fresh seed, for the schemes that may be the best.
        words: folder of each run config -> the words that compose it.
        compose: run configs from the words of each; adds to `words`.
    """

    extends: bool
    confirm: list[str]
    words: dict[Path, list[str]]
    compose: Callable[[Iterable[list[str]]], list[RunConfig]]


@dataclass(frozen=True)
class Expanded:
    """What the words of a command stand for.

    Args:
        run_configs: of all grids, each once. None where a sweeper of others decides, or after --cfg.
        launcher: None if the runs are ours to start.
        printed: what --cfg asked for.
        further: None if the sweep is over with its grids.
    """

    run_configs: list[RunConfig]
    is_sweep: bool
    launcher: HydraSweep | None = None
    printed: str | None = None
    further: Further | None = None


def compose(words: Iterable[str], device: Device) -> RunConfig:
    """The run that `normbench run WORDS` would train, without what a study sweeps over. Raises ConfigError."""
    line = _read(words)
    with _composer(line.folders, device) as composer:
        return composer.run_config(composer.single(composer.axes(line.overrides)))


def expand(words: Iterable[str], device: Device, *, launchers: bool = False) -> Expanded:
    """The runs that `words` stand for: one, or every combination of a sweep. Raises ConfigError.

    Args:
        launchers: may they ask for one of Hydra's launchers or sweepers?
    """
    line = _read(words)
    with _composer(line.folders, device) as composer:
        given = composer.axes(line.overrides)
        keys = [word.partition("=")[0] for word in line.overrides]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            _log.warning("given twice: %s; the last one counts.", ", ".join(twice))
        if len(given.get("experiment", "")) > 1:
            raise ConfigError("a command makes one study: got several experiments. Give each a command of its own.")
        settings = [key for key in given if key.startswith("hydra")]
        fresh = given.pop("hydra.sweeper.confirm", None)  # several values, and none of Hydra's
        asked = composer.single({key: given[key] for key in [*given.keys() & settings, *given.keys() & {"experiment"}]})
        master = composer.compose(asked) if asked else OmegaConf.create({"hydra": USUAL})
        is_sweep = line.is_sweep or master.hydra.mode == RunMode.MULTIRUN
        for key in given.keys() & settings:
            del given[key]
        if line.cfg:
            shared = {key: values for key, values in given.items() if not is_sweep or len(values) == 1}
            return Expanded(
                [], is_sweep, printed=OmegaConf.to_yaml(composer.run_config(composer.single(shared)).config)
            )
        if not is_sweep:
            if settings:
                raise ConfigError(f"{settings[0]} is for sweeps: normbench run -m ...")
            return Expanded([composer.run_config(composer.single(given))], False)
        made_by, usual = master.hydra.runtime.choices, USUAL["runtime"]["choices"]
        theirs = next((key for key, choice in usual.items() if made_by[key] != choice), None)
        if theirs and not launchers:
            raise ConfigError(f"{theirs} is for normbench run -m alone.")
        if theirs == "hydra/sweeper":
            task = [word for word in line.overrides if not word.lstrip("+~").startswith("hydra")]
            return Expanded([], True, HydraSweep(master, composer.loader, {}, task))
        made: list[tuple[RunConfig, list[str]]] = []
        for axes in composer.grids(given, master.hydra.sweeper):
            if math.prod(map(len, axes.values())) > MOST:
                raise ConfigError(f"a sweep has at most {MOST:,} runs: got {math.prod(map(len, axes.values())):,}.")
            made += [(composer.run_config(words), list(words)) for words in itertools.product(*axes.values())]
        is_one = len(made) == 1 and "seed" not in given  # which belongs where it belongs alone
        if not is_one and not given.keys() & {"study", "experiment"}:
            study = study_name([one for one, _ in made])
            made = [(replace(one, config=replaced(one.config, "study", study)), [*words, f"study={quoted(study)}"])
                    for one, words in made]  # fmt: skip
        found: dict[Path, RunConfig] = {}
        words_of: dict[Path, list[str]] = {}
        for one, words in made:
            found.setdefault(one.folder, one)
            words_of.setdefault(one.folder, words)
        launcher = HydraSweep(master, composer.loader, words_of) if theirs else None
        further = _further(composer, master.hydra.sweeper, fresh, words_of)
        return Expanded(list(found.values()), True, launcher, further=further)


def _further(
    composer: Composer, sweeper: Any, fresh: list[str] | None, words_of: dict[Path, list[str]]
) -> Further | None:
    """Args: fresh: the seeds given on the command line instead of those of the study's file, each as a word."""
    if sweeper.extend not in (None, [], ["lr"]):
        raise ConfigError(f"hydra.sweeper.extend is [lr] or null: got {as_word(list(sweeper.extend))}.")
    if fresh is None and sweeper.confirm is not None:
        fresh = composer.axes([f"seed={sweeper.confirm}"])["seed"]
    seeds = [f"seed={value}" for word in fresh or () if (value := word.partition("=")[2]) != "null"]
    if spent := {word for words in words_of.values() for word in words} & set(seeds):
        raise ConfigError(
            f"seeds that choose can't confirm: {', '.join(sorted(spent))} is among hydra.sweeper.confirm. "
            "Give it others, such as hydra.sweeper.confirm=range(100,110)."
        )
    if not (seeds or sweeper.extend):
        return None

    def compose_all(many: Iterable[list[str]]) -> list[RunConfig]:
        with _composer(composer.folders, composer.device) as another:
            made = [(another.run_config(words), words) for words in many]
        words_of.update({run_config.folder: words for run_config, words in made})
        return list({run_config.folder: run_config for run_config, _ in made}.values())

    return Further(bool(sweeper.extend), seeds, words_of, compose_all)


def rebuild(chosen: Mapping[str, Any], values: Mapping[str, Any], folders: Sequence[Path] = ()) -> dict[str, Any]:
    """The configuration of a run that is over, without instruments. Its folder may come from a stranger: of what it
    says, the names of options and plain values are taken, and the files that they are options of are ours or the
    user's own. A `_target_` in it is never followed.

    Args:
        chosen: which option of each group, {"norm": "batch", ...}.
        values: the configuration that was recorded.
        folders: of the user's own (--config-dir).

    Raises: ConfigError for a name or a value that doesn't belong there.
    """
    words = [f"{group}={chosen.get(group)}" for group in COMMON]
    with _composer(folders, str) as composer:
        config = composer.run_config([*words, "instruments=none", "device=cpu"]).config
    defaults = dict(leaves(config))
    for key, value in leaves({name: value for name, value in values.items() if name != "instruments"}):
        if key.split(".")[-1] == "_target_":
            continue
        if key not in defaults:
            raise ConfigError(f"{key} is no option of {' '.join(words)}: the run was made by other files.")
        if not _is_plain(value):
            raise ConfigError(f"{key} of a run must be a plain value, a number or text.")
        config = replaced(config, key, accepted(key, value, defaults[key]))
    check_together(config)
    return config


def _read(words: Iterable[str]) -> argparse.Namespace:
    """A command line: `overrides`, the words that change options, and flags. Raises ConfigError for any other flag."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-m", "--multirun", dest="is_sweep", action="store_true")
    parser.add_argument("--cfg", choices=["job"])
    parser.add_argument("--config-dir", dest="folders", type=Path, action="append", default=[])
    try:
        line, rest = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{error}.") from error
    if flags := [word for word in rest if word.startswith("-")]:
        key = flags[0].partition("=")[0].lstrip("-").replace("-", "_")
        raise ConfigError(f"options are written key=value: got {flags[0]}. Did you mean {key}=...?")
    line.overrides = rest
    return line


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever Hydra raises inside becomes a ConfigError: it has only words and files of the user's to go by."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(message(error)) from error


@contextmanager
def _composer(folders: Sequence[Path], device: Device) -> Iterator[Composer]:
    """Inside, Hydra composes our files and those in `folders`; a caller's own use of Hydra goes on after it."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir needs a folder of YAML files: {folder} was not found.")
    with _LOCK:
        theirs = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        ConfigStore.instance().store(group="hydra/sweeper", name="normbench", node=SweeperSchema, provider="normbench")
        try:
            with hydra.initialize_config_dir(str(config_dir()), job_name="normbench", version_base="1.3"):
                yield Composer(folders, device)
        finally:
            if theirs is not None:
                GlobalHydra.instance().initialize(theirs)


@dataclass(frozen=True)
class _Base:
    """What run configs with the same choices share."""

    config: dict[str, Any]
    choices: dict[str, str]
    defaults: dict[str, Any]  # option -> value where these choices are made and nothing is changed
    written: dict[str, str]  # option -> the expression that it was given as


_BASES: dict[tuple[str, ...], _Base] = {}


class Composer:
    """Turns words into run configs, inside `_composer()`.

    Args:
        folders: of the user's own files.
    """

    def __init__(self, folders: Sequence[Path], device: Device) -> None:
        self.folders = [folder.absolute() for folder in folders]
        self.flags = [f"--config-dir={folder}" for folder in self.folders]
        self.loader = GlobalHydra.instance().config_loader()
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.device, self._parse = cache(device), cache(self._parse_word)
        self.bases: dict[tuple[str, ...], _Base] = {}

    def axes(self, words: Iterable[str]) -> Axes:
        """What each word, such as lr=0.1,1, gives to its option: lr=0.1 and lr=1. Of two, the last counts."""
        axes = {}
        for word in words:
            override = self._parse(word)
            key = override.get_key_element()
            if not override.is_sweep_override():
                as_it_is = override.is_delete() or "${" in word
                values = [word if as_it_is else f"{key}={override.get_value_element_as_str()}"]
            elif override.is_discrete_sweep():
                values = [f"{key}={value}" for value in self._listed(override)]
            else:
                values = [word, word]  # an interval, which only sweepers of Hydra's understand
            axes[key.lstrip("+~")] = values
        return axes

    def grids(self, given: Axes, sweeper: Any) -> Iterator[Axes]:
        """The axes of each grid. One given on the command line replaces that of the experiment's file; a further grid
        whose own values the command line rules out is left out.
        """
        first = self.axes(f"{key}={value}" for key, value in (sweeper.params or {}).items())
        yield first | given
        for extra in sweeper.also or ():
            own = self.axes(f"{key}={as_word(value)}" for key, value in extra.items())
            if all(set(own[key]) <= set(given[key]) for key in own.keys() & given.keys()):
                yield first | given | own

    def single(self, axes: Axes) -> list[str]:
        """The words of a single run. Raises ConfigError if an option has several values."""
        lists = [values[0] + "".join(f",{value.partition('=')[2]}" for value in values[1:]) for values in axes.values()]
        for values, word in zip(axes.values(), lists, strict=True):
            if len(values) > 1:
                again = command("run", "-m", *self.flags, *lists)
                raise ConfigError(f"{word} lists several values. To sweep over them: {again}")
        return [values[0] for values in axes.values()]

    def compose(self, words: Iterable[str]) -> DictConfig:
        """Everything, with Hydra's part."""
        paths = [f"file://{folder}" for folder in self.folders]
        search = [f"hydra.searchpath={quoted(paths)}"] if paths else []
        with _one_line():
            return hydra.compose("config", overrides=[*search, *words], return_hydra_config=True)

    def run_config(self, words: Sequence[str]) -> RunConfig:
        """The run that `words` compose, each of which gives one value. Raises ConfigError."""
        overrides = {word: self._parse(word) for word in words}
        values = [override for override in overrides.values() if _is_option(override)]
        base = self._base(tuple(word for word, override in overrides.items() if not _is_option(override)))
        if base.written or any("$" in word for word in words):  # a value may depend on another
            base, values = self._base(tuple(words)), []
        config = base.config
        for override in values:
            key = override.key_or_group
            if override.is_sweep_override():
                raise ConfigError(f"a grid needs values that can be listed: got {override.input_line}.")
            if isinstance(_value(config, key), Mapping):
                raise ConfigError(f"{key} is a group of options, not one: got {override.input_line}.")
            config = replaced(config, key, override.value())
        found, defaults = dict(leaves(config)), base.defaults
        for key in sorted(found.keys() ^ defaults.keys()):
            if not key.startswith(INSTRUMENTS):
                raise ConfigError(f"options can be changed, not added or deleted: {key}.")
        for key, value in found.items():
            if "${" in str(value):  # what reads it next would take it for an expression
                raise ConfigError(f"a value can't have ${{ in it: got {key}={value}.")
            if type(value) is type(defaults.get(key)) and value == defaults[key]:
                continue
            if "_target_" in key or "_target_" in str(value):
                raise ConfigError(
                    f"a _target_ belongs in a file of its group, such as configs/norm/batch.yaml: got {key}."
                )
            if key in defaults:
                config = replaced(config, key, accepted(key, value, defaults[key]))
        check_together(config)
        config = {**config, "device": self.device(config["device"])}
        return make_run_config(config, base.choices, base.defaults, usual_choices(), base.written, self.flags)

    def _parse_word(self, word: str) -> Override:
        """What a word says. Raises ConfigError for one that has no place here, whatever Hydra would make of it."""
        with _one_line():
            [override] = self.parser.parse_overrides([word])
        key = override.key_or_group
        if key.startswith("hydra"):
            if not HYDRA.fullmatch(key):
                raise ConfigError(f"of Hydra's options, hydra/launcher and hydra/sweeper can be given: got {word}.")
            return override
        changes = override.type == OverrideType.CHANGE and override.package is None
        if not changes and (not key.startswith(INSTRUMENTS) or (override.is_delete() and key.count(".") > 2)):
            raise ConfigError(f"options can be changed, not added or deleted: got {word}.")
        if override.is_delete() or override.is_sweep_override():  # of a sweep, each value is checked by itself
            return override
        value = override.value()
        if key in GROUPS:
            known = choices(key, self.folders)
            if "${" not in word and (not isinstance(value, str) or value not in known):
                raise ConfigError(not_one_of(key, known, word.partition("=")[2]))
        elif changes and isinstance(value, Mapping):
            raise ConfigError(f"{key} takes one value, not a group of options: got {word}.")
        return override

    def _listed(self, override: Override) -> list[str]:
        """The values of a sweep, such as range(0,5), as they are typed."""
        sweep, word = override.value(), override.input_line
        if isinstance(sweep, RangeSweep):
            count = ((sweep.stop or 0) - (sweep.start or 0)) / sweep.step if sweep.step else math.inf
            if not count <= MOST:
                raise ConfigError(f"a range must end, after at most {MOST:,} values: got {word}.")
        with _one_line():
            values = list(override.sweep_string_iterator())
        if not values:
            raise ConfigError(f"there is nothing to sweep over: got {word}.")
        return values

    def _typed(self, key: str, value: Any) -> Any:
        """What an expression came to, as if it had been typed: a variable of the environment is text, seed a number."""
        if not isinstance(value, str):
            return value
        try:
            override = self._parse(f"{key}={value}")
            return value if override.is_sweep_override() else override.value()
        except ConfigError:
            return value

    def _base(self, words: tuple[str, ...]) -> _Base:
        ours = not self.folders and "$" not in " ".join(words)  # composed from files that don't change
        bases = _BASES if ours else self.bases
        if words not in bases:
            bases[words] = self._compose_base(words)
        return bases[words]

    def _compose_base(self, words: tuple[str, ...]) -> _Base:
        cfg = self.compose(words)
        found = {group: cfg.hydra.runtime.choices.get(group) for group in (*COMMON, "instruments")}
        for group, choice in found.items():
            if choice not in (known := choices(group, self.folders)):  # an expression may have come to anything
                raise ConfigError(not_one_of(group, known, choice))
        with _one_line():
            written, config = _plain(cfg)
        for key in written:
            config = replaced(config, key, self._typed(key, _value(config, key)))
        chosen = tuple(f"{group}={choice}" for group, choice in found.items())
        is_bare = all(word.partition("=")[0] in found for word in words)
        defaults = dict(leaves(config)) if is_bare else self._base(chosen).defaults
        return _Base(config, found, defaults, written)


def _is_option(override: Override) -> bool:
    """Does this word change one option, so that its value can be put in its place?"""
    return override.type == OverrideType.CHANGE and override.key_or_group not in GROUPS


def _is_plain(value: Any) -> bool:
    """Is it a value that executes nothing and refers to nothing: a number, text, a list of these?"""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or (isinstance(value, str | int | float) and "${" not in str(value))


def _value(config: Mapping[str, Any], key: str) -> Any:
    """The value of "model.hidden". Raises ConfigError if there is no such option."""
    value: Any = config
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise ConfigError(unknown_option(key))
        value = value[name]
    return value


def _plain(cfg: DictConfig) -> tuple[dict[str, str], dict[str, Any]]:
    """Values that are written as expressions, and all values, in a fixed order: files of equal runs are equal."""
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    order = [*COMMON, "instruments", *top_level()]
    if wrong := set(cfg) ^ set(order):
        raise ConfigError(f"options can be changed, not added or deleted: {', '.join(sorted(map(str, wrong)))}.")
    raw: Any = OmegaConf.to_container(cfg, resolve=False, throw_on_missing=True)
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for group in (*COMMON, "instruments"):
        if not isinstance(config[group], dict):
            raise ConfigError(f"{group} is a group of options: got {as_word(config[group])}.")
    if not isinstance(config["instruments"].get("measure"), dict):
        raise ConfigError("instruments.measure says what is measured, such as {shift: {}}: it can't be left out.")
    written = {key: str(value) for key, value in leaves(raw) if "${" in str(value)}
    return written, {key: config[key] for key in order}


def build(config: Mapping[str, Any]) -> dict[str, Any]:
    """Find the parts of a plain configuration: the one place where `_target_` is followed.

    Returns: the target of each group with its own options, to be called with what is not known yet: a partial of
        "norm", "model" and "dataset", and a list of those of "instruments".

    Raises: ConfigError if a part can't be found.
    """
    if str(Path.cwd()) not in sys.path:  # a console script has no working folder on its path: my_norms.py lies there
        sys.path.append(str(Path.cwd()))
    found: dict[str, Any] = {group: _target(group, config[group], common) for group, common in COMMON.items()}
    measured = config["instruments"]["measure"].items()
    return {**found, "instruments": [_instrument(name, options) for name, options in measured]}


def _instrument(name: str, options: Mapping[str, Any]) -> partial[Any]:
    """One of ours by its name, train_test_shift for TrainTestShift; one of the user's has a `_target_`."""
    if not isinstance(options, Mapping):
        raise ConfigError(f"{INSTRUMENTS}{name} takes options, {{}} for none: got {as_word(options)}.")
    ours = "normbench.instruments." + "".join(part.capitalize() for part in name.split("_"))
    try:
        return _target(INSTRUMENTS + name, {"_target_": ours, **options})
    except ConfigError as error:
        raise error if "_target_" in options else ConfigError(f"there is no instrument {name}.") from error


def _target(name: str, options: Mapping[str, Any], common: Iterable[str] = ()) -> partial[Any]:
    if "_target_" not in options:
        raise ConfigError(f"{name} needs a _target_, the class or function that makes it: its file has none.")
    own = {key: value for key, value in options.items() if key not in common}
    plain = {key: deepcopy(value) for key, value in own.items() if key != "_target_"}
    if str(own["_target_"]).startswith("normbench.") and "_target_" not in str(plain):
        with suppress(Exception):  # whatever it is, Hydra says it in its own words
            return partial(get_object(own["_target_"]), **plain)  # 3 ms faster than instantiate
    try:
        return instantiate({**own, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise ConfigError(" ".join(str(error).split())) from error
