"""What a configuration must fulfil, beyond the types of its top-level options."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from normbench.errors import ConfigError


def check(config: Mapping[str, Any]) -> None:
    """Refuse values of the right type that make no sense. Raises ConfigError."""
    from normbench.training.optimizers import LR_SCALINGS, OPTIMIZERS, SCHEDULES

    def rule(ok: bool, key: str, text: str) -> None:
        if not ok:
            raise ConfigError(f"{key} must be {text}: got {as_word(config[key])}.")

    rule(config["optimizer"] in OPTIMIZERS, "optimizer", f"one of {', '.join(OPTIMIZERS)}")
    rule(config["schedule"] in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
    rule(config["lr_scaling"] in LR_SCALINGS, "lr_scaling", f"one of {', '.join(LR_SCALINGS)}")
    rule(0 < config["warmup"] < 1, "warmup", "between 0 and 1, a share of the run")
    rule(all(0 < at < 1 for at in config["steps_at"]), "steps_at", "a list of shares of the run, between 0 and 1")
    rule(math.isfinite(config["growth"]) and config["growth"] > 0, "growth", "a positive number")
    for key in ("accumulate", "reference_batch_size"):
        rule(config[key] >= 1, key, "1 or more")
    rule(config["clip_norm"] is None or config["clip_norm"] > 0, "clip_norm", "a positive number, or null")
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
    rule(samples is None or samples >= config["batch_size"] * config["accumulate"], "max_samples",
         "at least the images of one update")  # fmt: skip
    rule(config["perturb_step"] is None or config["perturb_step"] >= 0, "perturb_step", "0 or more, or null")
    rule(
        math.isfinite(config["perturb_factor"]) and config["perturb_factor"] > 0, "perturb_factor", "a positive number"
    )
    rule(config["perturb_block"] >= 0, "perturb_block", "0 or more")
    rule(config["seed"] >= 0, "seed", "0 or more")
    rule(config["evaluations"] >= 1, "evaluations", "1 or more")
    rule(config["log_every"] >= 1, "log_every", "1 or more")
    rule(config["checkpoint_seconds"] >= 0, "checkpoint_seconds", "0 or more")
    rule(config["threads"] >= 1, "threads", "1 or more")
    rule(re.fullmatch(r"[\w.+-]+", config["study"]) is not None and config["study"].strip(".") != "", "study",
         "a plain folder name (letters, digits, _ . + -)")  # fmt: skip
    jobs = config["jobs"]
    rule(jobs == "auto" or (isinstance(jobs, int) and jobs >= 1), "jobs", "auto, or 1 or more")
    limit, part = config["cell_timeout"], config["shard"]
    rule(limit is None or limit > 0, "cell_timeout", "a positive number of seconds, or null")
    rule(config["rerun"] in ("failed", "diverged", "all"), "rerun", "one of failed, diverged, all")
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", part or "1/1")
    rule(match is not None and int(match[1]) <= int(match[2]), "shard", "PART/PARTS, such as 2/8, or null")
    if config["instruments"]["measure"]:
        check_instruments(config["instruments"])


def check_instruments(options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the options that all instruments share make sense."""
    # batch norm can't work with the statistics of one image; a shift needs a start and an end
    for key, least in (("probe", 2), ("snapshots", 2), ("positions", 1), ("images", 2)):
        value = options[key]
        if not (isinstance(value, int) and value >= least) and not (key == "images" and value is None):
            raise ConfigError(f"instruments.{key} must be a whole number, {least} or more: got {as_word(value)}.")
    if options["schedule"] not in ("log", "every"):
        raise ConfigError(f"instruments.schedule must be one of log, every: got {as_word(options['schedule'])}.")
    tensors = ("linear", "normalized", "activation")
    for key, known in (("layers", None), ("tensors", tensors)):
        value = options[key]
        right = value is None or (isinstance(value, list) and value and all(isinstance(v, str) for v in value))
        if not right or (known and value and set(value) - set(known)):
            example = f"of {', '.join(known)}" if known else "of names or patterns such as [hidden1]"
            raise ConfigError(f"instruments.{key} must be a list {example}, or null: got {as_word(value)}.")


def check_layers(patterns: Sequence[str] | None, names: Sequence[str]) -> None:
    """Raise ConfigError where `instruments.layers` names a block that the network doesn't have."""
    for pattern in patterns or ():
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"instruments.layers must be of {', '.join(names)}, or patterns of these: got {pattern}.")


def check_type(key: str, value: Any, default: Any) -> None:
    """Refuse a group's option of another type than its default (top-level ones have a schema). Raises ConfigError."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", list: "a list"}
    kind = type(default)
    if key == "norm.momentum" and value is None:  # a plain average over training
        return
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


def as_word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(as_word, value)) + "]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
