"""Images as files in folders named after their classes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normbench.data.source import DataError

if TYPE_CHECKING:  # PIL is imported late: `normbench data` only lists
    from PIL.Image import Image


def list_images(folder: Path, classes: Sequence[str], per_class: int) -> list[list[Path]]:
    """The paths `folder`/<class>/*.png of each class.

    Raises: DataError unless each class has `per_class` of them.
    """
    groups = [sorted((folder / name).glob("*.png")) for name in classes]
    for name, group in zip(classes, groups, strict=True):
        if len(group) != per_class:
            raise DataError(f"{folder / name} must hold {per_class:,} PNG images: found {len(group):,}. Complete it.")
    return groups


def read_images(
    groups: list[list[Path]],
    shape: tuple[int, int, int],
    convert: Callable[["Image"], "Image"],
    advance: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Decode images and make them of one `shape` (H, W, C) by `convert`; labels are positions in `groups`.

    Shape: uint8 [N, C, H, W] and int64 [N]

    Raises: DataError that names an image which cannot be read.
    """
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    images = np.empty((len(labels), *shape), np.uint8)
    for row, path in enumerate(path for group in groups for path in group):
        with opened(path) as image:
            pixels = np.atleast_3d(np.asarray(convert(image)))
            if pixels.shape != shape:
                raise ValueError(f"its shape is {pixels.shape}, not {shape}")
            images[row] = pixels
        advance(1)
    return images.transpose(0, 3, 1, 2), labels  # [N, H, W, C] -> [N, C, H, W]


def check_files(groups: list[list[Path]]) -> None:
    """Compare every PNG with the checksums inside it.

    Decoding stops at the last pixel and skips them: of 14,000 flipped bits in two images 87 changed pixels unnoticed.

    Raises: DataError that names the first damaged image.
    """
    for path in (path for group in groups for path in group):
        with opened(path) as image:
            image.verify()


@contextmanager
def opened(path: Path) -> Iterator["Image"]:
    """Open an image; what goes wrong then, or with it, is a DataError that names it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except PermissionError as error:
        raise DataError(f"cannot read {path} ({error.strerror}). Give yourself the right to.") from error
    # PIL says SyntaxError for a broken PNG header
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is damaged ({error}). Replace it by the original.") from error
