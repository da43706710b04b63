"""Pickles of plain numpy arrays, and of nothing else."""

import pickle
from typing import Any, BinaryIO

import numpy as np

# A pickle can name any function and have it called. Arrays need these; numpy 2 moved one, so it goes by two names.
_rebuild = np.empty(0).__reduce__()[0]
ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy._core.multiarray", "_reconstruct"): _rebuild,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array") from None


def load_arrays(file: BinaryIO) -> Any:
    """Read containers of arrays from a pickle, Python 2's included (its strings come as bytes).

    Raises: pickle.UnpicklingError if the pickle asks for anything but numpy arrays.
    """
    return _ArrayUnpickler(file, encoding="bytes").load()
