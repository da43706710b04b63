"""What there is to choose from, read from the YAML files themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

GROUPS = {
    "norm": "schemes",
    "model": "models",
    "dataset": "data sets",
    "instruments": "instruments",
    "experiment": "experiments",
}


@cache
def config_dir() -> Path:
    """The folder of YAML files: inside the package once installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"normbench is not completely installed: {here / 'configs'} is missing.")


def choices(group: str, folders: Iterable[Path] = ()) -> dict[str, str]:
    """The options of a group with their one-line descriptions: {"batch": "batch normalization ...", ...}.

    Args:
        folders: of the user's own (--config-dir), besides ours.
    """
    return {
        path.relative_to(folder / group).with_suffix("").as_posix(): description(path)
        for folder in (config_dir(), *folders)
        for path in sorted((folder / group).rglob("*.yaml"))
    }


def experiment_of(study: str) -> tuple[str, str]:
    """The experiment that puts its runs into this study, and its description, the question; ("", "") if none does."""
    folder = config_dir() / "experiment"
    for path in sorted(folder.rglob("*.yaml")):
        if (yaml.safe_load(path.read_bytes()) or {}).get("study") == study:
            return path.relative_to(folder).with_suffix("").as_posix(), description(path)
    return "", ""


def description(path: Path) -> str:
    """The first comment line of a YAML file."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:2]
    comments = [line.lstrip("# ").strip() for line in lines if line.startswith("#")]
    return next((line for line in comments if not line.startswith("@package")), "")


@cache
def _main_file() -> dict[str, Any]:
    return yaml.safe_load((config_dir() / "config.yaml").read_bytes())


def top_level() -> list[str]:
    """Every option that belongs to no group, in the order of configs/config.yaml."""
    return [key for key in _main_file() if key not in ("defaults", "hydra")]


def usual_choices() -> dict[str, str]:
    """What is chosen of each group if nothing is said: {"norm": "batch", ...}."""
    named = [entry for entry in _main_file()["defaults"] if isinstance(entry, dict)]
    return {group: choice for entry in named for group, choice in entry.items() if group in GROUPS and choice}


def group_options(group: str, chosen: Iterable[str] = (), folders: Sequence[Path] = ()) -> list[str]:
    """The options in a group's files, `norm.eps`: in those that are `chosen`, or in all."""
    found = [
        f"{group}.{key}"
        for folder in (config_dir(), *folders)
        for path in sorted((folder / group).glob("*.yaml"))
        if not chosen or path.stem in chosen
        for key in yaml.safe_load(path.read_bytes()) or {}
        if key not in ("_target_", "defaults")
    ]
    return list(dict.fromkeys(found))


def complete(line: str) -> list[str]:
    """What the last word of a command line can become, for the shell: options, groups and their choices, files."""
    from normbench.config.schema import OPTIONS

    words = line.split()
    current = "" if line.endswith(" ") else words.pop()
    folders = [Path(word) for flag, word in pairwise(words) if flag == "--config-dir"]
    key, equals, value = current.partition("=")
    if not equals and "." in current:
        group = current.partition(".")[0]
        chosen = usual_choices() | dict(word.split("=", 1) for word in words if "=" in word)
        found = [f"{key}=" for key in group_options(group, chosen.get(group, "").split(","), folders)]
    elif not equals:
        found = [f"{key}=" for key in (*GROUPS, *top_level())]
    elif value.startswith((".", "/", "~")):
        folder = value.rpartition("/")[0] + "/"
        found = [f"{key}={folder}{path.name}{'/' * path.is_dir()}" for path in Path(folder).expanduser().glob("*")]
    else:
        option, before = OPTIONS.get(key), value.rpartition(",")
        values = choices(key, folders) if key in GROUPS else option.choices if option else ()
        truths = ("true", "false") if option and option.kind is bool else ()
        found = [f"{key}={before[0]}{before[1]}{name}" for name in (*values, *truths)]
    return [word for word in found if word.startswith(current)]
