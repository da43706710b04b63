"""Hydra's errors in one or two lines: the rule, what came, what to type."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from hydra.errors import OverrideParseException

from normbench.config import compose as config
from normbench.config.options import choices, config_dir


def worded(error: Exception) -> str:
    """`str(error)`, for the user."""
    text = str(error).split("\nConfig search path")[0].strip()
    cause = str(error.__cause__ or "").splitlines()
    if match := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, choice = match.groups()
        return f"{group} is one of {', '.join(choices(group))}: got {choice}."
    if match := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", text):
        key = match[1].split("=")[0]
        if cause and "not in" not in cause[0] and "struct" not in cause[0]:
            return f"{cause[0]}"
        known = _keys()
        if key in known:
            return f"this {key.partition('.')[0]} has no option {key}; another has. See normbench run --help."
        near = difflib.get_close_matches(key, known, 1) or difflib.get_close_matches(key.split(".")[-1], known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"there is no option {key}.{hint} See normbench run --help."
    if match := re.match(r"Error merging override (\S+)", text) or re.match(r"Error merging override '([^']+)'", text):
        return f"{match[1]}: {cause[0] if cause else text}"
    if "missing EQUAL" in text:
        word = re.search(r"override '([^']+)'", text)
        return f"options are written key=value: got {word[1] if word else text}. See normbench run --help."
    if isinstance(error, OverrideParseException) and "Ambiguous" not in text:
        key, _, value = error.override.partition("=")
        quoted = f"""'{key}="{"..." if '"' in value else value}"'"""
        return f"{error.override} can't be read. Brackets and quotes go in pairs; other signs need quotes: {quoted}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]} lists several values. To sweep over them: normbench run -m {match[1]}"
    return " ".join(text.split())


def _keys() -> list[str]:
    """All options by name: top-level ones, groups, and those of every group's files."""
    import yaml

    folder: Path = config_dir()
    keys = list(config.Schema.__dataclass_fields__)
    for group in config.GROUPS:
        for path in sorted((folder / group).glob("*.yaml")):
            keys += [f"{group}.{key}" for key in yaml.safe_load(path.read_bytes())]
    return list(dict.fromkeys(keys))
