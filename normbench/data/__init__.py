"""Data sets as whole uint8 tensors: where they come from (sources, cache) and how they are cut and scaled (splits).

A source is a callable `(data_dir) -> Source`. Reading order: source.py, store.py, synthetic.py, cut.py, split.py,
augment.py, whitening.py, corruptions.py; idx.py and cifar.py hold what the data sets of one format share.
"""

from typing import TYPE_CHECKING, Any

from normbench.data.catalog import Listing, describe, fetch, import_from
from normbench.data.source import DataError, Source, canonical
from normbench.data.store import cached, default_data_dir

if TYPE_CHECKING:
    from normbench.data.corruptions import CORRUPTIONS, Corrupted, check_corruption
    from normbench.data.split import Dataset, Split, prepare

__all__ = [
    "CORRUPTIONS",
    "Corrupted",
    "DataError",
    "Dataset",
    "Listing",
    "Source",
    "Split",
    "cached",
    "canonical",
    "check_corruption",
    "default_data_dir",
    "describe",
    "fetch",
    "import_from",
    "prepare",
]


def __getattr__(name: str) -> Any:
    # These need torch, which takes seconds to import; `normbench data` and `normbench list` do without.
    if name in ("Dataset", "Split", "prepare"):
        from normbench.data import split

        return getattr(split, name)
    if name in ("CORRUPTIONS", "Corrupted", "check_corruption"):
        from normbench.data import corruptions

        return getattr(corruptions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
