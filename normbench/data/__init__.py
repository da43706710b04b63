"""Data sets as whole uint8 tensors: where they come from (sources, cache) and how they are cut and scaled (dataset).

A source is a callable `(data_dir) -> Source`. Reading order: canonical.py, cache.py, sources.py, image_folder.py,
synthetic.py, mnist1d.py, splits.py, dataset.py, augment.py, whitening.py, corruptions.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from normbench.data.cache import cached, default_data_dir
from normbench.data.canonical import DataError, Source, canonical
from normbench.data.image_folder import folder
from normbench.data.sources import PUBLISHED, cifar10, cifar100, fashion_mnist, fetch, mnist, state_of

if TYPE_CHECKING:
    from normbench.data.corruptions import CORRUPTIONS, Corrupted, check_corruption
    from normbench.data.dataset import Dataset, Split, prepare, split_for_testing

__all__ = [
    "CORRUPTIONS", "PUBLISHED", "Corrupted", "DataError", "Dataset", "Source", "Split", "cached", "canonical",
    "check_corruption", "cifar10", "cifar100", "default_data_dir", "fashion_mnist", "fetch", "folder", "mnist",
    "prepare", "split_for_testing", "state_of",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # These need torch, which takes seconds to import; `normbench data` and `normbench list` do without.
    for module in ("dataset", "corruptions"):
        if name in __all__ and hasattr(found := import_module(f"normbench.data.{module}"), name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
