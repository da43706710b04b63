"""What each option accepts: its type and its range. The options' meanings and defaults are in the YAML files."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normbench.config.run_config import as_word
from normbench.errors import ConfigError

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", list: "a list"}


@dataclass(frozen=True)
class Option:
    """What an option accepts.

    Args:
        kind: type of its values; None: any.
        rule: after "must be", where a value of the right type is not right.
        holds: is a value of that type right?
        null: may it be null, too?
        choices: all that it may be, where these are few.
    """

    kind: type | None
    rule: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    null: bool = False
    choices: tuple[str, ...] = ()

    def text(self, default: Any) -> str:
        """All of it in words, for a value of another type."""
        kind = KINDS[self.kind or str]
        if not self.rule or (self.kind is list and default):
            return kind if self.kind is bool else f"{kind} such as {as_word(default)}"
        if self.rule.startswith("a ") or self.choices or self.kind in (None, str):
            return self.rule
        return f"{kind}, {self.rule}"


def whole(least: int, null: bool = False) -> Option:
    return Option(int, f"{least} or more" + ", or null" * null, lambda value: value >= least, null)


def number(rule: str, holds: Callable[[float], bool], null: bool = False) -> Option:
    return Option(float, rule + ", or null" * null, lambda value: math.isfinite(value) and holds(value), null)


def positive(null: bool = False, of: str = "") -> Option:
    return number(f"a positive number{of}", lambda value: value > 0, null)


def one_of(*choices: str) -> Option:
    return Option(str, f"one of {', '.join(choices)}", lambda value: value in choices, choices=choices)


def matching(pattern: str, rule: str, null: bool = False) -> Option:
    """Text that can be (a part of) a path, and matches."""

    def holds(value: str) -> bool:
        fits = value.isprintable() and all(len(name.encode()) <= 200 for name in value.split("/"))
        return fits and re.fullmatch(pattern, value) is not None

    return Option(str, rule, holds, null)


def words(rule: str, known: Iterable[str] = ()) -> Option:
    """A list of words, of `known` if there are any, or null."""

    def holds(value: list[Any]) -> bool:
        return bool(value) and all(isinstance(v, str) and (not known or v in known) for v in value)

    return Option(list, rule, holds, null=True)


flag = Option(bool)
LARGEST = 1_000_000  # units, channels: a larger network fits no machine, and torch's own message names no option
sizes = Option(list, f"of sizes from 1 to {LARGEST:,}", lambda value: all(1 <= size <= LARGEST for size in value))
any_number = number("a finite number", lambda value: True)
at_least_zero = number("0 or more", lambda value: value >= 0)
at_least_one = number("1 or more", lambda value: value >= 1)
printable = Option(str, "a word that can be printed", lambda value: value.isprintable() and value.strip() != "")
share = number("at least 0 and below 1", lambda value: 0 <= value < 1)
share_of_run = number("between 0 and 1, a share of the run", lambda value: 0 < value < 1)

OPTIONS: dict[str, Option] = {
    "optimizer": one_of("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "muon"),
    "lr": positive(),
    "momentum": share,
    "weight_decay": at_least_zero,
    "decay_norm_parameters": flag,
    "schedule": one_of("constant", "linear", "cosine", "step", "warmup_cosine", "exponential_up"),
    "warmup": share_of_run,
    "steps_at": Option(list, "a list of shares of the run, between 0 and 1", lambda at: all(0 < a < 1 for a in at)),
    "growth": positive(),
    "lr_scaling": one_of("none", "linear", "sqrt"),
    "reference_batch_size": whole(1),
    "clip_norm": positive(null=True),
    "batch_size": whole(1),
    "accumulate": whole(1),
    "amp": one_of("none", "bf16"),
    "epochs": positive(),
    "max_steps": whole(1, null=True),
    "max_samples": whole(1, null=True),
    "max_seconds": positive(null=True, of=" of seconds"),
    "perturb_step": whole(0, null=True),
    "perturb_factor": positive(),
    "perturb_block": whole(0),
    "seed": whole(0),
    "evaluations": whole(1),
    "curve_images": whole(1, null=True),
    "log_every": whole(1),
    "checkpoint_seconds": at_least_zero,
    "save_model": flag,
    "study": matching(r"(?!\.+$)[\w.+-]+", "a plain folder name (letters, digits, _ . + -; not too long)"),
    "results_dir": matching(".+", "a folder"),
    "data_dir": matching(".+", "a folder, or null", null=True),
    "device": matching("(?!meta).+", "auto, cpu, cuda or cuda:1 ..."),
    "threads": whole(1),
    "execute": one_of("auto", "processes", "stacked"),
    "jobs": Option(None, "auto, or 1 or more", lambda n: n == "auto" or (type(n) is int and n >= 1)),
    "max_runs": whole(1, null=True),
    "cell_timeout": positive(null=True, of=" of seconds"),
    "rerun": one_of("failed", "diverged", "all"),
    "shard": matching(r"[1-9]\d*/[1-9]\d*", "PART/PARTS, such as 2/8, or null", null=True),
    "norm.name": printable,
    "norm.eps": positive(),
    "norm.momentum": number("above 0 and at most 1", lambda value: 0 < value <= 1, null=True),
    "norm.affine": flag,
    "norm.per_step": flag,
    "norm.gamma": any_number,
    "norm.statistics": one_of("ema", "averages", "precise", "evalnorm", "batch"),
    "norm.placement": one_of("before", "after"),
    "norm.init_images": Option(int, "2 or more, for they must vary, or 0 for none", lambda n: n == 0 or n >= 2),
    "norm.virtual": whole(1),
    "norm.update_per": one_of("step", "ghost_batch"),
    "norm.groups": whole(1),
    "norm.channels_per_group": whole(1, null=True),
    "norm.r_max": at_least_one,
    "norm.d_max": at_least_zero,
    "norm.warmup_steps": whole(0),
    "norm.noise_mean": at_least_zero,
    "norm.noise_scale": at_least_one,
    "norm.noise_spread": at_least_zero,
    "norm.alpha": positive(),
    "norm.gain": positive(),
    "model.name": printable,
    "model.activation": one_of("relu", "sigmoid", "tanh", "leaky_relu", "elu", "gelu", "selu"),
    "model.dropout": share,
    "model.init": one_of("auto", "he", "lecun", "glorot", "orthogonal", "torch", "normal"),
    "model.init_std": positive(),
    "model.init_scale": positive(),
    "model.hidden": sizes,
    "model.channels": sizes,
    "model.pooled": sizes,
    "model.width": number("above 0 and at most 100,000", lambda value: 0 < value <= 100_000),
    "model.depth": Option(int, "from 1 to 1,000", lambda value: 1 <= value <= 1000),
    "model.units": Option(int, f"from 1 to {LARGEST:,}", lambda value: 1 <= value <= LARGEST),
    "model.cell": one_of("lstm", "gru", "tanh"),
    "model.sequence": one_of("rows", "pixels", "permuted_pixels"),
    "model.pool": whole(1),
    "model.permutation_seed": whole(0),
    "model.initial_state_noise": at_least_zero,
    "model.noise": at_least_zero,
    "model.normalize_output": flag,
    "dataset.validation": whole(1),
    "dataset.split_seed": whole(0),
    "dataset.draw_seed": whole(0, null=True),
    "dataset.train_fraction": number("above 0 and at most 1", lambda value: 0 < value <= 1),
    "dataset.scale": one_of("standard", "unit", "raw"),
    "dataset.augment": one_of("none", "flip_crop", "translate"),
    "dataset.whiten": one_of("none", "zca"),
    "dataset.label_noise": share,
    "dataset.examples": whole(40),
    "dataset.channels": whole(1, null=True),
    "dataset.seed": whole(0),
    "dataset.noise": whole(0),
    "dataset.path": matching(".+", "a folder, or null", null=True),
    "dataset.size": whole(1, null=True),
    "dataset.test_share": number("above 0 and below 1", lambda value: 0 < value < 1),
    # batch norm can't work with the statistics of one image; a shift needs a start and an end
    "instruments.probe": whole(2),
    "instruments.snapshots": whole(2),
    "instruments.schedule": one_of("log", "every"),
    "instruments.layers": words("a list of names or patterns such as [hidden1], or null"),
    "instruments.tensors": words(
        "a list of linear, normalized, activation, or null", ("linear", "normalized", "activation")
    ),
    "instruments.positions": whole(1),
    "instruments.images": whole(2, null=True),
    "instruments.units": whole(0),
}


def accepted(key: str, value: Any, default: Any) -> Any:
    """`value` as option `key` holds it: where numbers are expected, whole ones become floats.

    Args:
        default: what a file says it is if nothing is changed; an option that is not in `OPTIONS`, such as those of a
            user's own scheme, accepts values of that type.

    Raises: ConfigError for a value of another type or out of range.
    """
    option = OPTIONS.get(key)
    if option is None or not (default is None or _is_a(option.kind, default)):  # another's option of the same name
        option = Option(type(default) if type(default) in KINDS else None, null=default is None)
    if value is None and option.null:
        return None
    kind = type(default) if option.kind is float and type(default) in (int, float) else option.kind
    if kind is str and type(value) in (int, float):  # study=2024
        value = as_word(value)
    if not _is_a(kind, value):
        raise ConfigError(f"{key} must be {option.text(default)}: got {_shown(value)}.")
    limit = 2**63 - 1 if type(value) is int else 3.4e38  # of 64-bit integers and 32-bit floats
    if type(value) in (int, float) and limit < abs(value) < math.inf:
        raise ConfigError(f"{key} must be at most {limit:.2g} in size: got {_shown(value)}.")
    if kind is list and default and not isinstance(default[0], Mapping):
        value = [accepted(f"each of {key}", item, default[0]) for item in value]
    if not option.holds(value):
        raise ConfigError(f"{key} must be {option.rule}: got {_shown(value)}.")
    return float(value) if kind is float else value


def _shown(value: Any) -> str:
    """In a message, where a terminal would obey control characters."""
    word = as_word(value)
    return word if word and word.isprintable() else ascii(word)


def _is_a(kind: type | None, value: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    return kind is None or isinstance(value, kind)


def check_together(config: Mapping[str, Any]) -> None:
    """Refuse values that are right by themselves, but not together. Raises ConfigError."""
    samples, least = config["max_samples"], config["batch_size"] * config["accumulate"]
    if config["max_steps"] is not None and samples is not None:
        raise ConfigError("max_steps and max_samples both say how long to train. Give one of them.")
    if samples is not None and samples < least:
        raise ConfigError(f"max_samples must be at least the images of one update: got {samples}.")
    if config["max_seconds"] is not None and config["schedule"] != "constant":
        raise ConfigError(
            f"max_seconds needs schedule=constant, as the number of updates is not known: got {config['schedule']}."
        )
    part, _, parts = (config["shard"] or "1/1").partition("/")
    if int(part) > int(parts):
        raise ConfigError(f"shard must be {OPTIONS['shard'].rule}: got {config['shard']}.")


def check_layers(patterns: Sequence[str] | None, names: Sequence[str]) -> None:
    """Raise ConfigError where `instruments.layers` names a block that the network doesn't have."""
    for pattern in patterns or ():
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"instruments.layers must be of {', '.join(names)}, or patterns of these: got {pattern}.")
