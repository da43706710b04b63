"""Images as files in folders named after their classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from normbench.data.source import DataError


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
    groups: list[list[Path]], size: tuple[int, int], advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode colour images of `size` (H, W); labels are positions in `groups`.

    Shape: uint8 [N, 3, H, W] and int64 [N]

    Raises: DataError that names an image which cannot be read.
    """
    from PIL import Image  # late: `normbench data` only lists

    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    images = np.empty((len(labels), *size, 3), np.uint8)
    for row, path in enumerate(path for group in groups for path in group):
        try:
            with Image.open(path) as image:
                images[row] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # PIL says SyntaxError for a broken PNG header
            raise _damaged(path, error) from error
        advance(1)
    return images.transpose(0, 3, 1, 2), labels  # [N, H, W, C] -> [N, C, H, W]


def check_files(groups: list[list[Path]]) -> None:
    """Compare every PNG with the checksums inside it.

    Decoding stops at the last pixel and skips them: of 14,000 flipped bits in two images 87 changed pixels unnoticed.

    Raises: DataError that names the first damaged image.
    """
    from PIL import Image

    for path in (path for group in groups for path in group):
        try:
            with Image.open(path) as image:
                image.verify()
        except (OSError, SyntaxError, ValueError) as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged ({error}). Replace it by the original.")
