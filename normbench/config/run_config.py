"""One run to be, as plain values, and what it is called."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

INSTRUMENTS = "instruments.measure."  # the only place where options may be added and deleted
# Where things go and how a sweep runs: they change nothing that a run computes, so they are no part of its identity.
NOT_IDENTITY = {"study", "results_dir", "data_dir", "save_model", "checkpoint_seconds", "device"}
NOT_IDENTITY |= {"execute", "jobs", "max_runs", "cell_timeout", "rerun", "shard"}
BARE = ("norm", "model", "dataset")  # groups whose choices a name has without their key
LONGEST_STUDY = 60  # characters of the name of a study that was given none


@dataclass(frozen=True)
class RunConfig:
    """One run to be: plain values, ready to be sent to another process.

    Args:
        name: of its folder: readable, and ending in a hash of its identity.
        choices: which option of each group: {"norm": "batch", ...}.
        config: every value, resolved; the groups' `_target_`s as names.
        identity: what makes it this run and no other: choices, values that differ from the defaults, threads, device.
        words: the shortest command line that repeats it.
        written: values that were given as an expression, {"seed": "${oc.env:SEED}"}; `config` holds what it came to.
        flags: where the files are that are not ours: ["--config-dir=/home/me/my_configs"].
    """

    name: str
    choices: dict[str, str]
    config: dict[str, Any]
    identity: dict[str, Any]
    words: list[str]
    written: dict[str, str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return Path(self.config["results_dir"]).expanduser().absolute() / self.config["study"] / self.name

    def word(self, key: str) -> str:
        """The word that gives an option its value, "lr=0.001", be it the default; "" where there is no such option."""
        if key in self.choices:
            return f"{key}={self.choices[key]}"
        with suppress(KeyError, TypeError):  # such as norm.eps where norm=none
            return f"{key}={quoted(reduce(getitem, key.split('.'), self.config))}"
        return next((word for word in self.words if key_of(word) == key), "")


def make_run_config(
    config: dict[str, Any],
    choices: dict[str, str],
    defaults: Mapping[str, Any],
    usual: Mapping[str, str],
    written: dict[str, str],
    flags: list[str],
) -> RunConfig:
    """Name a configuration by what is special about it.

    Args:
        config: every value, checked; `device` is the one that the run will use.
        defaults: option -> value where these choices are made and nothing is changed.
        usual: the choices that need not be made.
    """
    if (path := config["dataset"].get("path")) is not None:  # wherever the command is repeated, the same images
        config = replaced(config, "dataset.path", str(Path(os.path.expanduser(str(path))).resolve()))  # noqa: PTH111
    values = sorted((k, v) for k, v in leaves(config) if k.split(".")[0] not in NOT_IDENTITY)
    changed = {key: value for key, value in values if key not in defaults or defaults[key] != value}
    measured = {key.split(".")[2] for key in defaults if key.startswith(INSTRUMENTS)}
    deleted = [INSTRUMENTS + name for name in sorted(measured - config["instruments"]["measure"].keys())]
    identity = {
        "choices": choices,
        "values": changed | dict.fromkeys(deleted, "deleted"),
        "threads": config["threads"],
        "device": config["device"].split(":")[0],
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    words = [f"{group}={choice}" for group, choice in choices.items() if choice != usual[group] or group == "norm"]
    words += [f"{'' if key in defaults else '+'}{key}={quoted(value)}" for key, value in changed.items()]
    words += [f"~{key}" for key in deleted]
    readable = [choices[group] for group in BARE]
    short = changed | ({"dataset.path": Path(changed["dataset.path"]).name} if "dataset.path" in changed else {})
    readable += [f"{key.split('.')[-1]}{as_word(value)}" for key, value in short.items()]
    name = re.sub(r"[^a-zA-Z0-9_.+-]+", "_", "-".join(readable))[:96].strip("_-.")
    return RunConfig(f"{name}-{digest}", choices, config, identity, words, written, flags)


def key_of(word: str) -> str:
    """ "lr" of "lr=0.1"; of "~instruments.measure.units" what is deleted."""
    return word.partition("=")[0].lstrip("+~")


def shared_words(run_configs: Sequence[RunConfig]) -> list[str]:
    """The words that all of a sweep's runs have."""
    first, *others = ({*run_config.words} for run_config in run_configs)
    shared = first.intersection(*others)
    return [word for word in run_configs[0].words if word in shared]


def swept(run_configs: Sequence[RunConfig]) -> list[str]:
    """The options that set a sweep's runs apart: groups first, then by name."""
    shared, groups = {*shared_words(run_configs)}, list(run_configs[0].choices)
    keys = {key_of(word) for one in run_configs for word in one.words if word not in shared}
    return sorted(keys, key=lambda key: (groups.index(key) if key in groups else len(groups), key))


def study_name(run_configs: Sequence[RunConfig]) -> str:
    """Of a sweep that was given none: what varies, then what is fixed, "norm+batch_size-synthetic-max_steps_500".

    It does not depend on the order of the words, on the values of what varies, or on seeds: a sweep that is repeated
    with further ones goes on in its study.
    """
    varies = "+".join(key.split(".")[-1] for key in swept(run_configs) if key != "seed")
    fixed = [word.partition("=") for word in shared_words(run_configs) if key_of(word) != "seed"]
    texts = [value if key in BARE else f"{key.split('.')[-1]}_{Path(value).name}".strip("_") for key, _, value in fixed]
    full = "-".join(filter(None, [varies, *texts]))
    name = re.sub(r"[^a-zA-Z0-9_.+-]+", "_", full).strip("_-.+")
    digest = hashlib.sha256(full.encode()).hexdigest()[:8]
    return name if len(name) <= LONGEST_STUDY else f"{name[: LONGEST_STUDY - 9].rstrip('_-.+')}-{digest}"


def command(*words: str) -> str:
    """`normbench run norm=batch ...` as one can paste it into a shell."""
    return shlex.join(["normbench", *words])


def data_may_change(config: Mapping[str, Any]) -> bool:
    """Are the images the user's own, so that they may be others by now than when the run was trained?"""
    dataset = config["dataset"]
    return "path" in dataset or not str(dataset.get("_target_")).startswith("normbench.data.")


def has_own_code(config: Mapping[str, Any]) -> bool:
    """Is a part of the run code of the user's own?"""
    targets = re.findall(r'"_target_": "([^"]*)"', json.dumps(config))
    return not all(target.startswith("normbench.") for target in targets)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("model.hidden", [100, 100]) and so on; an instrument without options is a leaf, too: {}."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and (value or not prefix.startswith(INSTRUMENTS)):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def replaced(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """`tree` with another value at "model.hidden"; what does not change is shared, not copied."""
    name, _, below = key.partition(".")
    return {**tree, name: replaced(tree[name], below, value) if below else value}


def as_word(value: Any) -> str:
    """A value as one reads it: null, true, [100,100], 0.001."""
    return _word(value, str)


def quoted(value: Any) -> str:
    """A value as one types it: text that would be read as something else is in quotes."""
    return _word(value, _in_quotes)


def _word(value: Any, text: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(_word(item, text) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else str(value)
    return text(value) if isinstance(value, str) else str(value)


def _in_quotes(text: str) -> str:
    plain = re.fullmatch(r"([A-Za-z_/]|\.(?!\d))[\w./:+-]*", text, re.ASCII)
    if plain and text.lower() not in ("true", "false", "null", "nan", "inf"):
        return text
    escaped = re.sub(r"""(\\*)("|$)""", lambda found: 2 * found[1] + found[2].replace('"', '\\"'), text)
    return f'"{escaped}"'
