"""Images as files in folders named after their classes: a user's own, or a published data set's."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normbench.data.cache import cached
from normbench.data.canonical import DataError, Source, canonical, in_canonical_order
from normbench.data.splits import stratified_order

if TYPE_CHECKING:  # PIL is imported late: `normbench data` only lists
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L")  # PIL's modes
DEEP = ("I", "F")  # more than 8 bits, where PIL would cut values off at 255
TEST_SEED = 0
HINT = "Type dataset.path=FOLDER, one that holds train/<class>/<images> and maybe test/<class>/<images>."


def folder(data_dir: Path, *, path: str | None, size: int | None = None, test_share: float = 0.2) -> Source:
    """The images `path`/train/<class>/* and `path`/test/<class>/*, sizes and channels as the first one's.

    Grey images have one channel, all others three; transparency is dropped. Files whose endings are not in SUFFIXES
    are ignored. The cache is rebuilt when names, sizes or times of the files change.

    Args:
        size: resize to size x size pixels (bilinear, with antialiasing, whatever the proportions); None: leave them.
        test_share: share in (0, 1) cut off for testing where there is no folder test, class-balanced, always the same.

    Raises: DataError
    """
    if path is None:
        raise DataError(f"dataset=folder needs a folder of images. {HINT}")
    # str: a folder may be called 2024. Path's own expanduser raises for an unknown user.
    root = Path(os.path.expanduser(str(path))).resolve()  # noqa: PTH111
    parts = [list_images(root / part) for part in ("train", "test") if part == "train" or (root / part).exists()]
    if odd := sorted(set(parts[0]) ^ set(parts[-1])):
        raise DataError(
            f"train and test need the same classes: in {root} only one of them has {', '.join(odd)}. "
            "Add those folders to the other, or take them away."
        )
    files = [file for part in parts for group in part.values() for file in group]
    key = hashlib.sha256(repr((root, size, len(parts) == 1 and test_share)).encode()).hexdigest()[:12]
    stamp = repr([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])

    def decode() -> Source:
        arrays = read_images(parts, root, size)
        if len(arrays) == 1:
            images, labels = in_canonical_order(*arrays[0])
            order, count = stratified_order(labels, TEST_SEED), round(test_share * len(labels))
            if not 0 < count < len(labels):
                raise DataError(
                    f"train and test need an image: test_share={test_share} of {len(labels)} leaves one without."
                )
            arrays = [(images[rows], labels[rows]) for rows in (order[count:], order[:count])]
        return canonical("folder", tuple(parts[0]), *arrays)

    return cached(f"folder-{key}", data_dir, decode, stamp=hashlib.sha256(stamp.encode()).hexdigest())


def list_images(part: Path) -> dict[str, list[Path]]:
    """The images in each folder of a folder, by name.

    Raises: DataError unless there are two classes or more, with an image each.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(part) if entry.is_dir() and entry.name[0] != ".")
        files = {name: sorted(entry.name for entry in os.scandir(part / name)) for name in names}
    except OSError as error:
        raise DataError(f"cannot read {error.filename} ({error.strerror}). {HINT}") from error
    if len(names) < 2:
        raise DataError(f"{part} must hold folders of two classes or more: found {', '.join(names) or 'none'}. {HINT}")
    groups = {
        name: [part / name / file for file in inside if file.lower().endswith(SUFFIXES) and file[0] != "."]
        for name, inside in files.items()
    }
    if empty := [name for name, images in groups.items() if not images]:
        raise DataError(
            f"every class needs an image: {part / empty[0]} holds no {', '.join(SUFFIXES)}. "
            "Put some there, or take the folder away."
        )
    return groups


def read_images(
    parts: list[dict[str, list[Path]]], root: Path, size: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decode images, all of the form of the first one; labels are positions of the classes.

    Shape: per part uint8 [N, C, H, W] and int64 [N]

    Raises: DataError that names an image which cannot be read, or is of another form.
    """
    from rich.console import Console  # imported late: only slow things need it
    from rich.progress import track

    first = next(iter(parts[0].values()))[0]
    with opened(first) as image:
        grey, (width, height) = image.mode in GREY, (size, size) if size else image.size

    def decode(path: Path) -> np.ndarray:
        with opened(path) as image:
            if image.mode.startswith(DEEP):
                raise DataError(f"images need 8 bits per channel: {path} has more ({image.mode}). Convert it.")
            if grey and image.mode not in GREY:
                raise DataError(f"{path} has colours and {first}, the first image, has none. Convert one of them.")
            if not size and image.size != (width, height):
                raise DataError(
                    f"all images must be of one size: {path} has {image.size[0]}x{image.size[1]} pixels, "
                    f"{first} {width}x{height}.\nType e.g. dataset.size={min(width, height)}"
                )
            image = image.convert("L" if grey else "RGB")
            image = image.resize((width, height), resample=2) if size else image  # 2: PIL.Image.BILINEAR
            return np.atleast_3d(np.asarray(image))  # [H, W, C]

    console, arrays = Console(stderr=True), []
    for part in parts:
        labels = np.repeat(np.arange(len(part)), [len(files) for files in part.values()])
        images = np.empty((len(labels), height, width, 1 if grey else 3), np.uint8)
        paths = [path for files in part.values() for path in files]
        for row, path in enumerate(track(paths, f"Decoding {root}", console=console, disable=not console.is_terminal)):
            images[row] = decode(path)
        arrays.append((images.transpose(0, 3, 1, 2), labels))  # [N, H, W, C] -> [N, C, H, W]
    return arrays


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
