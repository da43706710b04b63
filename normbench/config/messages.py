"""Hydra's errors in one line: the rule, what came, what to type."""

from __future__ import annotations

import difflib
import re

from hydra.errors import OverrideParseException

from normbench.config.options import GROUPS, choices, group_options, top_level


def message(error: Exception) -> str:
    """`str(error)`, for the user."""
    text = str(error).split("\nConfig search path")[0].strip()
    cause = str(error.__cause__ or "").splitlines()
    if match := re.search(r"Could not find '([^']+)'", text):
        listed = re.search(r"Available options in '([^']+)':\s*(.*)", text, re.DOTALL)
        group = listed[1] if listed else match[1].partition("/")[0]
        known = choices(group) if group in GROUPS else listed[2].split() if listed else []
        return f"{group} is one of {', '.join(known)}: got {match[1].removeprefix(f'{group}/')}."
    if "hydra.sweeper.also" in text or "hydra.sweeper.also" in str(error.__cause__):
        return (
            "this study has further grids (hydra.sweeper.also), which no other sweeper knows: leave out hydra/sweeper."
        )
    if match := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']+)'", text):
        if cause and "not in" not in cause[0] and "struct" not in cause[0]:
            return cause[0]
        return unknown_option(match[1].split("=")[0])
    if match := re.match(r"Error merging override '?([^\s']+)", text):
        return f"{match[1]}: {cause[0] if cause else text}"
    if "missing EQUAL" in text:
        word = re.search(r"override '([^']+)'", text)
        return f"options are written key=value: got {word[1] if word else text}. See normbench run --help."
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        quoted = f"""'{key}="{"..." if '"' in value else value}"'"""
        return f"{error.override} can't be read. Brackets and quotes go in pairs; other signs need quotes: {quoted}"
    return " ".join(text.split())


def unknown_option(key: str) -> str:
    """Why `key` is no option, and what may have been meant."""
    known = [*top_level(), *GROUPS]
    for group in GROUPS:
        known += [option for option in group_options(group) if group != "experiment"]
    if key in known:
        return f"this {key.partition('.')[0]} has no option {key}; another has. See normbench run --help."
    near = difflib.get_close_matches(key, known, 1) or difflib.get_close_matches(key.split(".")[-1], known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"there is no option {key}.{hint} See normbench run --help."
