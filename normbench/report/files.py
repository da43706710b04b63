"""The files in a study's `report/`: written whole, and those of an earlier build removed.

The folder may come from a stranger. Nothing is written through a link below the study, and nothing is removed but files
with the names that we give, where they really lie in this folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from normbench.files import write_atomically

LIST = "files.txt"  # what a build wrote, so that the next one removes no file that someone put beside
LONGEST = 2**20  # characters of that list
OURS = re.compile(r"report\.html|leaderboard\.(csv|md)|tables\.md|tables/\w+\.csv|figures/\w+\.(svg|png|pdf)", re.ASCII)


def write_files(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write `files` (name -> bytes) in their order, then remove those of the last build that are not among them.

    Raises:
        OSError: the folder can't be written, or it or one in it is a link.
    """
    for path in (folder, folder / "figures", folder / "tables"):
        if path.is_symlink():
            raise OSError(f"{path} is a link, and a report is written into no other folder. Remove it")
    folder.mkdir(parents=True, exist_ok=True)
    old = _listed(folder)
    files = {**files, LIST: "".join(f"{name}\n" for name in sorted([*files, LIST])).encode()}
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, data)  # replaces a link of that name, never what it points to
    for name in old - set(files):
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.resolve() == folder.resolve() / name:
            path.unlink()
    for part in (folder / "figures", folder / "tables"):
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()
    return tuple(folder / name for name in files)


def _listed(folder: Path) -> set[str]:
    """The last build's files by their names, of which anyone may have edited the list."""
    path = folder / LIST
    if path.is_symlink() or not path.is_file():  # not a pipe either, which would never end
        return set()
    with path.open(encoding="utf-8", errors="replace") as file:
        return {line for line in file.read(LONGEST).splitlines() if OURS.fullmatch(line)}
