"""The files in a study's `report/`: written whole, and those of an earlier build removed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from normbench.files import write_atomically

LIST = "files.txt"  # what a build wrote, so that the next one removes no file that someone put beside


def write_files(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write `files` (name -> bytes) in their order, then remove those of the last build that are not among them.

    Raises:
        OSError: the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = _listed(folder)
    files = {**files, LIST: "".join(f"{name}\n" for name in sorted([*files, LIST])).encode()}
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, data)
    for name in old - set(files):
        (folder / name).unlink(missing_ok=True)
    for part in ("figures", "tables"):
        if (folder / part).is_dir() and not any((folder / part).iterdir()):
            (folder / part).rmdir()
    return tuple(folder / name for name in files)


def _listed(folder: Path) -> set[str]:
    """The last build's files, but for a line that points out of the folder: anyone may edit a list."""
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return set()
    paths = {PurePosixPath(line) for line in lines if line}
    return {str(path) for path in paths if not path.is_absolute() and ".." not in path.parts and len(path.parts) < 3}
