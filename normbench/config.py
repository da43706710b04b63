"""From words on the command line to plain values. Hydra and OmegaConf stop here: the library knows neither."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write

from normbench.cell import Cell, ConfigError, Parts
from normbench.listing import config_dir

GROUPS = ("norm", "model", "dataset", "instruments")
# Where things go and how a sweep runs: they change nothing that a run computes, so they are no part of its identity.
NOT_IDENTITY = ("study", "results_dir", "data_dir", "jobs", "save_model", "checkpoint_seconds", "device")


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
    batch_size: int = MISSING
    epochs: float = MISSING
    max_steps: int | None = MISSING
    max_samples: int | None = MISSING
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


@dataclass
class SweeperSchema:
    """`hydra.sweeper`: `params` is how an experiment file says what to sweep over."""

    _target_: str = "hydra_plugins.normbench.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


def register() -> None:
    """Tell Hydra of the schemas. Safe to repeat."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Schema, provider="normbench")
    store.store(group="hydra/sweeper", name="normbench", node=SweeperSchema, provider="normbench")


def to_cell(cfg: DictConfig, chosen: Mapping[str, Any]) -> Cell:
    """Check a composed configuration and turn it into plain values.

    Args:
        chosen: the option of each group, `hydra.runtime.choices`.

    Raises: ConfigError.
    """
    choices = {group: str(chosen[group]) for group in GROUPS}
    # Compared before interpolation: where a part refers to an option, the option alone counts.
    unchanged, _ = _defaults(tuple(choices.items()))
    values = dict(leaves(plain(cfg, resolve=False)))
    for key, value in values.items():
        check_type(key, value, unchanged.get(key))
        if isinstance(unchanged.get(key), float) and type(value) is int:  # norm.eps=1 is norm.eps=1.0
            values[key] = float(value)
            OmegaConf.update(cfg, key, float(value))
    config = plain(cfg)
    check(config)
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
    words += [f"{key}={as_word(value)}" for key, value in changed.items()]
    readable = [choices["norm"], choices["model"], choices["dataset"]]
    readable += [f"{key.split('.')[-1]}{as_word(value)}" for key, value in changed.items()]
    name = re.sub(r"[^\w.+-]+", "_", "-".join(readable))[:96].strip("_-.")
    return Cell(f"{name}-{digest}", choices, config, identity, words)


@cache
def _defaults(choices: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values (before interpolation) and choices when only these options of groups are chosen and nothing is changed."""
    loader = GlobalHydra.instance().config_loader()
    words = [f"{group}={choice}" for group, choice in choices]
    cfg = loader.load_configuration("config", overrides=words, run_mode=RunMode.RUN)
    return dict(leaves(plain(cfg, resolve=False))), dict(cfg.hydra.runtime.choices)


def compose(words: Iterable[str]) -> Cell:
    """The cell that `normbench run WORDS` would train. Raises ConfigError, or what Hydra raises."""
    register()
    _defaults.cache_clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(config_dir())):
        cfg = hydra.compose("config", overrides=list(words), return_hydra_config=True)
        return to_cell(cfg, cfg.hydra.runtime.choices)


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """All values of `cfg`, without Hydra's part."""
    cfg = cfg.copy()
    with read_write(cfg), open_dict(cfg):
        cfg.pop("hydra", None)
    container = OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=True)
    # A fixed order, whatever the order of composition: files of equal runs are equal.
    assert isinstance(container, dict)
    order = [field.name for field in fields(Schema)]
    if wrong := set(container) ^ set(order):
        raise ConfigError(f"options can be changed, not added or deleted: {', '.join(sorted(map(str, wrong)))}.")
    return {key: container[key] for key in order}


def check(config: Mapping[str, Any]) -> None:
    """Refuse values of the right type that make no sense. Raises ConfigError."""
    from normbench.training import OPTIMIZERS

    def rule(ok: bool, key: str, text: str) -> None:
        if not ok:
            raise ConfigError(f"{key} must be {text}: got {as_word(config[key])}.")

    rule(config["optimizer"] in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
    rule(math.isfinite(config["lr"]) and config["lr"] > 0, "lr", "a positive number")
    rule(0 <= config["momentum"] < 1, "momentum", "at least 0 and below 1")
    rule(math.isfinite(config["weight_decay"]) and config["weight_decay"] >= 0, "weight_decay", "0 or more")
    rule(config["batch_size"] >= 1, "batch_size", "1 or more")
    rule(math.isfinite(config["epochs"]) and config["epochs"] > 0, "epochs", "a positive number")
    for key in ("max_steps", "max_samples"):
        rule(config[key] is None or config[key] >= 1, key, "1 or more, or null")
    if config["max_steps"] is not None and config["max_samples"] is not None:
        raise ConfigError("max_steps and max_samples both say how long to train. Give one of them.")
    samples = config["max_samples"]
    rule(samples is None or samples >= config["batch_size"], "max_samples", "at least one batch")
    rule(config["seed"] >= 0, "seed", "0 or more")
    rule(config["evaluations"] >= 1, "evaluations", "1 or more")
    rule(config["log_every"] >= 1, "log_every", "1 or more")
    rule(config["checkpoint_seconds"] >= 0, "checkpoint_seconds", "0 or more")
    rule(config["threads"] >= 1, "threads", "1 or more")
    rule(re.fullmatch(r"[\w.+-]+", config["study"]) is not None and config["study"].strip(".") != "", "study",
         "a plain folder name (letters, digits, _ . + -)")  # fmt: skip
    jobs = config["jobs"]
    rule(jobs == "auto" or (isinstance(jobs, int) and jobs >= 1), "jobs", "auto, or 1 or more")
    probe = config["instruments"]["probe"]
    least = 2 if config["instruments"]["list"] else 0  # batch norm can't work with the statistics of one image
    if not isinstance(probe, int) or probe < least:
        raise ConfigError(f"instruments.probe must be a whole number, {least} or more: got {as_word(probe)}.")


def check_type(key: str, value: Any, default: Any) -> None:
    """Refuse a group's option of another type than its default (top-level ones have a schema). Raises ConfigError."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", list: "a list"}
    kind = type(default)
    if kind not in kinds or "." not in key or any(isinstance(v, str) and "${" in v for v in (value, default)):
        return
    accepted = (int, float) if kind is float else kind
    ok = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
    if ok and kind is list and default and not isinstance(default[0], Mapping):
        for item in value:
            check_type(f"each of {key}", item, default[0])
    if not ok:
        example = "" if kind is bool else f" such as {as_word(default)}"
        raise ConfigError(f"{key} must be {kinds[kind]}{example}: got {as_word(value)}.")


def resolve_device(name: str) -> str:
    """ "auto" -> "cuda" or "cpu". Raises ConfigError if there is no such device here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"device must be one that this machine has: got {name}. Use device=auto.") from None
    return str(device)


def build(config: Mapping[str, Any]) -> Parts:
    """Build the parts of a plain configuration: the one place where `_target_` is followed.

    In each group's file, a key with a `_target_` is a part; the others are options that parts refer to.
    Raises: ConfigError if a part can't be built.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from normbench.norms import NormScheme

    if str(Path.cwd()) not in sys.path:  # a console script has no working folder on its path: my_norms.py lies there
        sys.path.append(str(Path.cwd()))
    try:
        names = {field.name for field in fields(NormScheme)}
        chosen = {k: v for k, v in config["norm"].items() if k in names and v is not None}
        return Parts(
            scheme=NormScheme(**instantiate(chosen, _convert_="all")),
            model=instantiate(config["model"]["build"], _convert_="all"),
            source=instantiate(config["dataset"]["source"], _convert_="all"),
            instruments=instantiate(config["instruments"]["list"], _convert_="all"),
        )
    except InstantiationException as error:
        raise ConfigError(" ".join(str(error).split())) from error


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """("model.hidden", [100, 100]) and so on."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(as_word, value)) + "]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
