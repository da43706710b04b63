"""From words on the command line to plain values. Hydra and OmegaConf stop here: the library knows neither."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write

from normbench.config.options import config_dir
from normbench.config.run_config import RunConfig
from normbench.config.schema import as_word, check, check_type, resolve_device
from normbench.errors import ConfigError

GROUPS = ("norm", "model", "dataset", "instruments")
# Where things go and how a sweep runs: they change nothing that a run computes, so they are no part of its identity.
NOT_IDENTITY = {"study", "results_dir", "data_dir", "save_model", "checkpoint_seconds", "device"}
NOT_IDENTITY |= {"jobs", "cell_timeout", "rerun", "shard"}


@dataclass
class Schema:
    """Types of the top-level options; their values are in configs/config.yaml."""

    norm: Any = MISSING
    model: Any = MISSING
    dataset: Any = MISSING
    instruments: Any = MISSING
    optimizer: str = MISSING
    lr: float = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING
    decay_norm_parameters: bool = MISSING
    schedule: str = MISSING
    warmup: float = MISSING
    steps_at: list[float] = MISSING
    growth: float = MISSING
    lr_scaling: str = MISSING
    reference_batch_size: int = MISSING
    clip_norm: float | None = MISSING
    batch_size: int = MISSING
    accumulate: int = MISSING
    epochs: float = MISSING
    max_steps: int | None = MISSING
    max_samples: int | None = MISSING
    perturb_step: int | None = MISSING
    perturb_factor: float = MISSING
    perturb_block: int = MISSING
    seed: int = MISSING
    evaluations: int = MISSING
    log_every: int = MISSING
    checkpoint_seconds: float = MISSING
    save_model: bool = MISSING
    study: str = MISSING
    results_dir: str = MISSING
    data_dir: str | None = MISSING
    device: str = MISSING
    threads: int = MISSING
    jobs: Any = MISSING
    cell_timeout: float | None = MISSING
    rerun: str = MISSING
    shard: str | None = MISSING


@dataclass
class SweeperSchema:
    """`hydra.sweeper`: `params` is how an experiment file says what to sweep over; `also`: further grids."""

    _target_: str = "hydra_plugins.normbench.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None
    also: list[dict[str, Any]] | None = None


def register() -> None:
    """Tell Hydra of the schemas. Safe to repeat."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Schema, provider="normbench")
    store.store(group="hydra/sweeper", name="normbench", node=SweeperSchema, provider="normbench")


def to_cell(cfg: DictConfig, chosen: Mapping[str, Any]) -> RunConfig:
    """Check a composed configuration and turn it into plain values.

    Args:
        cfg: without Hydra's part.
        chosen: the option of each group, `hydra.runtime.choices`.

    Raises: ConfigError.
    """
    use_floats(cfg, chosen)
    return make_cell(plain(cfg, resolve=False), plain(cfg), chosen)


def use_floats(cfg: DictConfig, chosen: Mapping[str, Any]) -> None:
    """Make whole numbers floats in `cfg` where the option's default is one."""
    for key, value in leaves(plain(cfg, resolve=False)):
        if (number := as_number(key, value, chosen)) is not value:
            OmegaConf.update(cfg, key, number)


def as_number(key: str, value: Any, chosen: Mapping[str, Any]) -> Any:
    """`value`, as a float where the option's default is one: norm.eps=1 is norm.eps=1.0."""
    return float(value) if type(value) is int and isinstance(_unchanged(chosen).get(key), float) else value


def make_cell(raw: Mapping[str, Any], config: dict[str, Any], chosen: Mapping[str, Any]) -> RunConfig:
    """Check plain values and name them.

    Args:
        raw: before interpolation: where a part refers to an option, the option alone counts.
        config: the same, resolved. The cell keeps it.

    Raises: ConfigError.
    """
    choices, unchanged = {group: str(chosen[group]) for group in GROUPS}, _unchanged(chosen)
    values = dict(leaves(raw))
    check(config)
    for key, value in values.items():
        check_type(key, value, unchanged.get(key))
    config["device"] = resolve_device(config["device"])
    counting = {k: v for k, v in sorted(values.items()) if k.split(".")[0] not in NOT_IDENTITY}
    changed = {k: v for k, v in counting.items() if k not in unchanged or unchanged[k] != v}
    identity = {
        "choices": dict(choices),
        "values": changed,
        "threads": config["threads"],
        "device": config["device"].split(":")[0],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    _, usual = _defaults(())
    words = [f"{group}={choice}" for group, choice in choices.items() if choice != usual[group] or group == "norm"]
    words += [f"{'' if key in unchanged else '+'}{key}={as_word(value)}" for key, value in changed.items()]
    readable = [choices["norm"], choices["model"], choices["dataset"]]
    readable += [f"{key.split('.')[-1]}{as_word(value)}" for key, value in changed.items()]
    name = re.sub(r"[^\w.+-]+", "_", "-".join(readable))[:96].strip("_-.")
    return RunConfig(f"{name}-{digest}", choices, config, identity, words)


def _unchanged(chosen: Mapping[str, Any]) -> dict[str, Any]:
    return _defaults(tuple((group, str(chosen[group])) for group in GROUPS))[0]


@cache
def _defaults(choices: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values (before interpolation) and choices when only these options of groups are chosen and nothing is changed."""
    loader = GlobalHydra.instance().config_loader()
    words = [f"{group}={choice}" for group, choice in choices]
    cfg = loader.load_configuration("config", overrides=words, run_mode=RunMode.RUN)
    return dict(leaves(plain(without_hydra(cfg), resolve=False))), dict(cfg.hydra.runtime.choices)


def compose(words: Iterable[str]) -> RunConfig:
    """The cell that `normbench run WORDS` would train. Raises ConfigError, or what Hydra raises."""
    register()
    _defaults.cache_clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        cfg = hydra.compose("config", overrides=list(words), return_hydra_config=True)
        return to_cell(without_hydra(cfg), cfg.hydra.runtime.choices)


def without_hydra(cfg: DictConfig) -> DictConfig:
    """A copy of `cfg` without Hydra's part, which is most of it."""
    cfg = cfg.copy()
    with read_write(cfg), open_dict(cfg):
        cfg.pop("hydra", None)
    return cfg


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """All values of `cfg`."""
    container = OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=True)
    # A fixed order, whatever the order of composition: files of equal runs are equal.
    assert isinstance(container, dict)
    order = [field.name for field in fields(Schema)]
    if wrong := set(container) ^ set(order):
        raise ConfigError(f"options can be changed, not added or deleted: {', '.join(sorted(map(str, wrong)))}.")
    return {key: container[key] for key in order}


# Options that the library itself reads, whatever the group's `_target_`, which is given all others.
COMMON = {
    "norm": {"name", "placement", "statistics", "init_images"},
    "model": {"name", "init", "init_std", "init_scale"},
    "dataset": {"name", "validation", "split_seed", "train_fraction", "scale", "augment", "whiten", "binarize",
                "label_noise"},
}  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """What the groups' `_target_`s name, each with its own options, to be called with what is not known yet."""

    norm: partial[Any]
    model: partial[Any]
    dataset: partial[Any]
    instruments: list[partial[Any]]


def build(config: Mapping[str, Any]) -> Targets:
    """Find the parts of a plain configuration: the one place where `_target_` is followed.

    Raises: ConfigError if a part can't be found or does not accept its options.
    """
    if str(Path.cwd()) not in sys.path:  # a console script has no working folder on its path: my_norms.py lies there
        sys.path.append(str(Path.cwd()))
    measured = config["instruments"]["measure"]
    return Targets(
        **{group: _target(group, config[group], common) for group, common in COMMON.items()},
        instruments=[_target(f"instruments.measure.{name}", options) for name, options in measured.items()],
    )


def _target(name: str, options: Mapping[str, Any], common: Iterable[str] = ()) -> partial[Any]:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    if "_target_" not in options:
        raise ConfigError(f"{name} needs a _target_, the class or function that makes it: its file has none.")
    own = {key: value for key, value in options.items() if key not in common}
    try:
        return instantiate({**own, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """("model.hidden", [100, 100]) and so on."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
