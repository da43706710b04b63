"""Several people's studies in one: the runs of a class, each copied if it is whole and fits the others."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normbench.errors import UserError
from normbench.runs.files import Damaged, file_seals
from normbench.runs.read import EVERYTHING, FINISHED, Run
from normbench.runs.study import Study, load_together


@dataclass(frozen=True)
class Merged:
    """What `merge` did.

    Args:
        copied: the runs that are new, as "student_1/demo/RUN".
        repeated: those left out, and the run with the same configuration, seed and numbers.
    """

    copied: tuple[str, ...]
    repeated: dict[str, str]


def merge(folders: Sequence[Path], into: Path) -> Merged:
    """Copy the runs of `folders` into the study `into`; if it has runs, these are the first folder's.

    Every run must be over, of this version and as it was written, and have the configuration of one of the first
    folder's runs but for the seed and what only names, places or observes a run. Nothing in a folder is executed, and
    no link is followed. All is checked before anything is written.

    Raises: FileNotFoundError: a folder holds no runs. UserError: a run is refused, or `into` can't be written.
    """
    given = [into, *folders] if into.is_dir() and any(Study(into)) else [*folders]
    for folder in given:
        _refuse_links(folder)
    study = load_together(*given)
    for name, why in study.unreadable.items():
        raise UserError(f"{name} can't be read: {why}. Nothing was merged: leave it out, or have it run again.")
    settings = {name: _without(found, "study") for name, found in study.settings.items()}
    first = next(iter(study)).study
    known = [settings[name] for name, run in study.members.items() if run.study == first]
    seen: dict[str, str] = {}  # configuration and seed -> run
    repeated, new, names = dict[str, str](), list[Run](), dict[str, str]()
    for name, run in study.members.items():
        _require_whole(name, run)
        if settings[name] not in known:
            raise UserError(
                f"{name} has another configuration than the runs of {first}: {_other(settings[name], known)}."
            )
        same = seen.setdefault(json.dumps([settings[name], run.seed], sort_keys=True, default=str), name)
        if same != name:
            if _numbers(study.members[same]) != _numbers(run):
                raise UserError(
                    f"{name} and {same} have the same configuration and seed {run.seed}, and other numbers. "
                    "Was a number on the class list used twice? Leave one of the two out."
                )
            repeated[name] = same
            continue
        if (other := names.setdefault(run.folder.name, name)) != name:
            raise UserError(f"{name} and {other} are two runs of one name: one of the folders was renamed.")
        new += [] if run.folder.parent == into else [run]
    try:
        into.mkdir(parents=True, exist_ok=True)
        for run in new:
            _copy(run, into)
    except OSError as error:
        raise UserError(f"{into} can't be written: {error}.") from error
    return Merged(tuple(run.name for run in new), repeated)


def _refuse_links(folder: Path) -> None:
    for run in Study(folder):
        for path in (run.folder, *_inside(run.folder)):
            if path.is_symlink():
                raise UserError(f"{path} is a link, which no run has: what it leads to is not copied.")


def _inside(folder: Path) -> Iterator[Path]:
    """All files and folders below one that is no link itself."""
    for here, folders, files in os.walk(folder) if not folder.is_symlink() else ():
        yield from (Path(here) / name for name in (*folders, *files))


def _require_whole(name: str, run: Run) -> None:
    if run.status not in FINISHED:
        raise UserError(f"{name} is not over ({run.status}). Whoever ran it repeats the command, which continues it.")
    try:
        if not (run.summary.get("seal") or {}).get("files"):
            raise Damaged("summary.json has no seal")
        run.check_seal(EVERYTHING)
    except Damaged as error:
        raise UserError(f"{name} is not as it was written: {error}.") from error


def _without(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != key}


def _other(found: dict[str, Any], known: Sequence[dict[str, Any]]) -> str:
    """What sets a configuration apart from the most similar one: "lr=0.1, not 0.001"."""
    differences = [sorted(key for key in {*found, *one} if found.get(key) != one.get(key)) for one in known]
    least = min(differences, key=len)
    one = known[differences.index(least)]
    return ", ".join(f"{key}={str(found.get(key))[:40]}, not {str(one.get(key))[:40]}" for key in least[:5])


def _numbers(run: Run) -> dict[str, Any]:
    """What a run found, without times, paths and machines."""
    return {key: value for key, value in run.summary.items() if not isinstance(value, dict)}


def _copy(run: Run, into: Path) -> None:
    """The files that the run's seal is about; under its own name when all of them are there."""
    ours = file_seals(run.folder)  # names of ours: those in the seal could lead anywhere
    names = ["summary.json", *(name for name in ours if name in run.summary["seal"]["files"])]
    temporary = into / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.folder / name, temporary / name)
        temporary.rename(into / run.folder.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
