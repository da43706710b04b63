"""From words on the command line to run configs, through Hydra's public interface: its parser of words, and `compose`.

Hydra composes once per choice of groups, which takes it 100 ms; single values, of which a grid has thousands, are then
checked and put in their places here.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from normbench.config.messages import message, unknown_option
from normbench.config.options import GROUPS, config_dir, top_level, usual_choices
from normbench.config.run_config import RunConfig, as_word, leaves, make_run_config, replaced
from normbench.config.schema import accepted, check_together
from normbench.errors import ConfigError

Device = Callable[[str], str]  # device=auto -> the one that is there; raises ConfigError where there is none
Axes = dict[str, list[str]]  # option -> words that give it a value; in a sweep there may be several

# Options that the library itself reads, whatever the group's `_target_`, which is given all others.
COMMON = {
    "norm": {"name", "placement", "statistics", "init_images"},
    "model": {"name", "init", "init_std", "init_scale"},
    "dataset": {"name", "validation", "split_seed", "train_fraction", "scale", "augment", "whiten", "binarize",
                "label_noise"},
}  # fmt: skip
_LOCK = threading.RLock()  # Hydra has one state for the whole process


@dataclass
class SweeperSchema:
    """`hydra.sweeper`: `params` is how an experiment file says what to sweep over; `also`: further grids."""

    _target_: str = "normbench"  # none of Hydra's: grids are expanded here
    params: dict[str, str] | None = None
    also: list[dict[str, Any]] | None = None


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
class Expanded:
    """What the words of a command stand for.

    Args:
        run_configs: of all grids, each once. None where a sweeper of others decides, or after --cfg.
        launcher: None if the runs are ours to start.
        printed: what --cfg asked for.
    """

    run_configs: list[RunConfig]
    is_sweep: bool
    launcher: HydraSweep | None = None
    printed: str | None = None


def compose(words: Iterable[str], device: Device) -> RunConfig:
    """The run that `normbench run WORDS` would train, without what a study sweeps over. Raises ConfigError."""
    line = _read(words)
    with _hydra():
        composer = Composer(line.search_path, device)
        return composer.run_config(_single(composer.axes(line.overrides)))


def expand(words: Iterable[str], device: Device, *, launchers: bool = False) -> Expanded:
    """The runs that `words` stand for: one, or every combination of a sweep. Raises ConfigError.

    Args:
        launchers: may they ask for one of Hydra's launchers or sweepers?
    """
    line = _read(words)
    with _hydra():
        composer = Composer(line.search_path, device)
        given = composer.axes(line.overrides)
        settings = [key for key in given if key.startswith(("hydra.", "hydra/"))]
        master = composer.compose(_single({key: given[key] for key in [*settings, *given.keys() & {"experiment"}]}))
        is_sweep = line.is_sweep or master.hydra.mode == RunMode.MULTIRUN
        if line.shown:
            shared = {key: values for key, values in given.items() if not is_sweep or len(values) == 1}
            return Expanded([], is_sweep, printed=OmegaConf.to_yaml(composer.run_config(_single(shared)).config))
        if not is_sweep:
            return Expanded([composer.run_config(_single(given))], False)
        theirs = _theirs(master)
        if theirs and not launchers:
            raise ConfigError(f"{theirs} is for normbench run -m alone.")
        if theirs == "hydra/sweeper":
            task = [word for word in line.overrides if not word.startswith(("hydra.", "hydra/"))]
            return Expanded([], True, HydraSweep(master, composer.loader, {}, task))
        found: dict[Path, RunConfig] = {}
        words_of: dict[Path, list[str]] = {}
        for key in settings:
            del given[key]
        for axes in composer.grids(given, master.hydra.sweeper):
            for chosen in itertools.product(*axes.values()):
                made = composer.run_config(chosen)
                found.setdefault(made.folder, made)
                words_of.setdefault(made.folder, list(chosen))
        launcher = HydraSweep(master, composer.loader, words_of) if theirs else None
        return Expanded(list(found.values()), True, launcher)


@dataclass
class _Line:
    """A command line: words that change options, and flags."""

    overrides: list[str] = field(default_factory=list)
    search_path: list[str] = field(default_factory=list)  # a word for Hydra, if there are folders of the user's own
    is_sweep: bool = False
    shown: bool = False


def _read(words: Iterable[str]) -> _Line:
    line, folders, rest = _Line(), [], list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag in ("--cfg", "--config-dir") and not equals:
            value = rest.pop(0) if rest else "nothing"
        if word in ("-m", "--multirun"):
            line.is_sweep = True
        elif flag == "--cfg":
            if value != "job":
                raise ConfigError(f"--cfg shows the configuration of a job: got {value}. Use --cfg job.")
            line.shown = True
        elif flag == "--config-dir":
            if not Path(value).is_dir():
                raise ConfigError(f"--config-dir needs a folder of YAML files: {value} was not found.")
            folders.append(str(Path(value).absolute()).replace('"', '\\"'))
        elif word.startswith("-"):
            key = flag.lstrip("-").replace("-", "_")
            raise ConfigError(f"options are written key=value: got {word}. Did you mean {key}=...?")
        else:
            line.overrides.append(word)
    if folders:
        line.search_path = ["hydra.searchpath=[{}]".format(",".join(f'"file://{path}"' for path in folders))]
    return line


@contextmanager
def _hydra() -> Iterator[None]:
    """Inside, Hydra composes our files, and its errors become ConfigErrors; a caller's own use of it goes on after."""
    with _LOCK:
        theirs = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        ConfigStore.instance().store(group="hydra/sweeper", name="normbench", node=SweeperSchema, provider="normbench")
        try:
            with hydra.initialize_config_dir(str(config_dir()), job_name="normbench", version_base="1.3"):
                yield
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(message(error)) from error
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


class Composer:
    """Turns words into run configs, inside `_hydra()`.

    Args:
        search_path: the word that tells Hydra of the user's own folders.
    """

    def __init__(self, search_path: Sequence[str], device: Device) -> None:
        self.search_path = list(search_path)
        self.loader = GlobalHydra.instance().config_loader()
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.device = device
        self.bases: dict[tuple[str, ...], _Base] = {}
        self.parsed: dict[str, Override] = {}
        self.devices: dict[str, str] = {}

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
                values = [f"{key}={value}" for value in override.sweep_string_iterator()]
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

    def compose(self, words: Iterable[str]) -> DictConfig:
        """Everything, with Hydra's part."""
        return hydra.compose("config", overrides=[*self.search_path, *words], return_hydra_config=True)

    def run_config(self, words: Sequence[str]) -> RunConfig:
        """The run that `words` compose, each of which gives one value. Raises ConfigError, or what Hydra raises."""
        values = [override for word in words if _is_plain_value(override := self._parse(word))]
        shape = tuple(word for word in words if not _is_plain_value(self._parse(word)))
        base = self._base(shape)
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
        for key, value in leaves(config):
            default = base.defaults.get(key)
            if key not in base.defaults:
                continue
            if type(value) is not type(default) or value != default:
                config = replaced(config, key, accepted(key, value, default))
        check_together(config)
        name = config["device"]
        if name not in self.devices:
            self.devices[name] = self.device(name)
        config = {**config, "device": self.devices[name]}
        return make_run_config(config, base.choices, base.defaults, usual_choices(), base.written)

    def _parse(self, word: str) -> Override:
        if word not in self.parsed:
            [self.parsed[word]] = self.parser.parse_overrides([word])
        return self.parsed[word]

    def _read(self, key: str, value: Any) -> Any:
        """What an expression came to, as if it had been typed: a variable of the environment is text, seed a number."""
        try:
            return self._parse(f"{key}={value}").value() if isinstance(value, str) else value
        except HydraException:
            return value

    def _base(self, words: tuple[str, ...]) -> _Base:
        if words not in self.bases:
            cfg = self.compose(words)
            choices = {group: str(cfg.hydra.runtime.choices[group]) for group in (*COMMON, "instruments")}
            written, config = _plain(cfg)
            for key in written:
                config = replaced(config, key, self._read(key, _value(config, key)))
            chosen = tuple(f"{group}={choice}" for group, choice in choices.items())
            is_bare = all(word.partition("=")[0] in choices for word in words)
            defaults = dict(leaves(config)) if is_bare else self._base(chosen).defaults
            self.bases[words] = _Base(config, choices, defaults, written)
        return self.bases[words]


def _theirs(master: DictConfig) -> str | None:
    """Which part of Hydra's is to run a sweep; None if we are."""
    choices = master.hydra.runtime.choices
    usual = {"hydra/sweeper": "normbench", "hydra/launcher": "basic"}
    return next((group for group, choice in usual.items() if choices[group] != choice), None)


def _is_plain_value(override: Override) -> bool:
    """Does this word give one option one value, so that it can be put in its place? Not if it adds, deletes, merges."""
    key = override.key_or_group
    changes = override.type == OverrideType.CHANGE and override.package is None
    return changes and key not in GROUPS and not key.startswith("hydra") and not isinstance(override.value(), dict)


def _single(axes: Axes) -> list[str]:
    """The words of a single run. Raises ConfigError if an option has several values."""
    for key, values in axes.items():
        if len(values) > 1:
            word = f"{key}={','.join(value.partition('=')[2] for value in values)}"
            raise ConfigError(f"{word} lists several values. To sweep over them: normbench run -m {word}")
    return [values[0] for values in axes.values()]


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
    written = {key: str(value) for key, value in leaves(raw) if "${" in str(value)}
    return written, {key: config[key] for key in order}


@dataclass(frozen=True)
class Targets:
    """What the groups' `_target_`s name, each with its own options, to be called with what is not known yet."""

    norm: partial[Any]
    model: partial[Any]
    dataset: partial[Any]
    instruments: list[partial[Any]]


def build(config: Mapping[str, Any]) -> Targets:
    """Find the parts of a plain configuration: the one place where `_target_` is followed.

    Raises: ConfigError if a part can't be found.
    """
    if str(Path.cwd()) not in sys.path:  # a console script has no working folder on its path: my_norms.py lies there
        sys.path.append(str(Path.cwd()))
    measured = config["instruments"]["measure"]
    return Targets(
        **{group: _target(group, config[group], common) for group, common in COMMON.items()},
        instruments=[_target(f"instruments.measure.{name}", options) for name, options in measured.items()],
    )


def _target(name: str, options: Mapping[str, Any], common: Iterable[str] = ()) -> partial[Any]:
    if "_target_" not in options:
        raise ConfigError(f"{name} needs a _target_, the class or function that makes it: its file has none.")
    own = {key: value for key, value in options.items() if key not in common}
    try:
        return instantiate({**own, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise ConfigError(" ".join(str(error).split())) from error
