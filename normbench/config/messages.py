"""What is wrong with a word, in one line: the rule, what came, what to type."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from hydra.errors import OverrideParseException

from normbench.config.options import GROUPS, group_options, top_level

LONGEST = 300  # characters of an error that is not ours
# Hydra's launchers and sweepers that are not installed with normbench -> the extra that installs them.
EXTRAS = {"optuna": "optuna", "ray": "ray", "ray_aws": "ray", "submitit_slurm": "slurm", "submitit_local": "slurm"}


def message(error: Exception) -> str:
    """`str(error)`, of Hydra, OmegaConf or a YAML file, for the user."""
    text = " ".join(str(error).split("\nConfig search path")[0].split())
    cause = str(error.__cause__ or "")
    if match := re.search(r"Could not find '(hydra/\w+)/(\w+)'", text):
        extra = EXTRAS.get(match[2])
        install = f"Install it: pip install 'normbench[{extra}]'" if extra else "Its plugin is not installed."
        return f"{match[1]}={match[2]} was not found. {install}"
    if ours := re.search(r"hydra\.sweeper\.(also|extend|confirm)", text + cause):
        return f"this study has {ours[0]}, which no other sweeper knows: leave out hydra/sweeper."
    if "missing EQUAL" in text:
        word = re.search(r"override '([^']+)'", text)
        return f"options are written key=value: got {word[1] if word else text}. See normbench run --help."
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        quoted = f"""'{key}="{"..." if '"' in value else value}"'"""
        return f"{error.override} can't be read. Brackets and quotes go in pairs; other signs need quotes: {quoted}"
    text = text.partition(" full_key:")[0]
    if cause:
        text = f"{text}: {cause.splitlines()[0]}"
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


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


def not_one_of(group: str, known: Iterable[str], got: object) -> str:
    return f"{group} is one of {', '.join(known)}: got {got}."
