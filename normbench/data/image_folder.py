"""Images as files in folders named after their classes: a user's own, or a published data set's."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normbench.data.cache import cached
from normbench.data.canonical import Arrays, DataError, Source, canonical, in_canonical_order
from normbench.data.splits import stratified_order

if TYPE_CHECKING:  # PIL is imported late: `normbench data` only lists
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA", "La")  # PIL's modes; the second letter is transparency
PALETTE = ("P", "PA")
DEEP = ("I", "F")  # more than 8 bits, where PIL would cut values off at 255
PARTS = {"test": ("test",), "validation": ("validation", "valid", "val")}  # the folders that they may be in
TEST_SEED = 0
HINT = "Type dataset.path=FOLDER, one that holds train/<class>/<images> and maybe test/<class>/<images>."
Tree = dict[str, list[Path]]  # class -> its images


def folder(
    data_dir: Path,
    *,
    path: str | None,
    size: int | None = None,
    channels: int | None = None,
    test_share: float = 0.2,
) -> Source:
    """The images `path`/train/<class>/*, `path`/test/<class>/* and, if there are any, `path`/val/<class>/*.

    They are upright (a photograph's EXIF orientation is applied) and opaque (transparency is dropped). Files whose
    endings are not in SUFFIXES are ignored. The cache is rebuilt when names, sizes or times of the files change.

    Args:
        size: resize to size x size pixels (bilinear, with antialiasing, whatever the proportions); None: leave them.
        channels: 1 (grey) or 3 (colour); None: 3 where any image has colours.
        test_share: share in (0, 1) cut off for testing where there is no folder test, class-balanced, always the same.

    Raises: DataError
    """
    if path is None:
        raise DataError(f"dataset=folder needs a folder of images. {HINT}")
    if channels not in (None, 1, 3):
        raise DataError(f"dataset.channels must be 1 (grey), 3 (colour) or null (as the files are): got {channels}.")
    # str: a folder may be called 2024. Path's own expanduser raises for an unknown user.
    root = Path(os.path.expanduser(str(path))).resolve()  # noqa: PTH111
    there = {part: root / name for part, names in PARTS.items() for name in names if (root / name).is_dir()}
    parts = {part: list_images(place) for part, place in {"train": root / "train", **there}.items()}
    for part, tree in parts.items():
        if odd := sorted(set(parts["train"]) ^ set(tree)):
            raise DataError(
                f"train and {part} need the same classes: in {root} only one of them has {', '.join(odd)}. "
                "Add those folders to the other, or take them away."
            )
    key = hashlib.sha256(repr((root, size, channels, "test" not in parts and test_share)).encode()).hexdigest()[:12]
    files = [file for tree in parts.values() for group in tree.values() for file in group]
    stamp = repr([(str(file), *_size_and_time(file)) for file in files])

    def decode() -> Source:
        arrays = read_images(parts, root, size, channels)
        if "test" not in arrays:
            images, labels = in_canonical_order(*arrays["train"])
            order, count = stratified_order(labels, TEST_SEED), round(test_share * len(labels))
            if not 0 < count < len(labels):
                raise DataError(
                    f"train and test need an image: test_share={test_share} of {len(labels)} leaves one without."
                )
            arrays |= {"train": (images[order[count:]], labels[order[count:]]),
                       "test": (images[order[:count]], labels[order[:count]])}  # fmt: skip
        return canonical("folder", tuple(parts["train"]), arrays["train"], arrays["test"], arrays.get("validation"))

    return cached(f"folder-{key}", data_dir, decode, stamp=hashlib.sha256(stamp.encode()).hexdigest())


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        about = file.stat()
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror}). Put the image there, or take it away.") from error
    if not stat.S_ISREG(about.st_mode):  # a pipe would be read for ever
        raise DataError(f"{file} is named like an image and is no file. Take it away.")
    return about.st_size, about.st_mtime_ns


def list_images(part: Path, hint: str = HINT) -> Tree:
    """The images in each folder of a folder, by name.

    Args:
        hint: what to type where there is no such folder.

    Raises: DataError unless there are two classes or more, with an image each.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(part) if entry.is_dir() and entry.name[0] != ".")
        files = {name: sorted(entry.name for entry in os.scandir(part / name)) for name in names}
    except OSError as error:
        raise DataError(f"cannot read {error.filename} ({error.strerror}). {hint}") from error
    if len(names) < 2:
        raise DataError(f"{part} must hold folders of two classes or more: found {', '.join(names) or 'none'}. {hint}")
    tree = {
        name: [part / name / file for file in inside if file.lower().endswith(SUFFIXES) and file[0] != "."]
        for name, inside in files.items()
    }
    if empty := [name for name, images in tree.items() if not images]:
        raise DataError(
            f"every class needs an image: {part / empty[0]} holds no {', '.join(SUFFIXES)}. "
            "Put some there, or take the folder away."
        )
    return tree


def read_images(
    parts: dict[str, Tree], root: Path, size: int | None = None, channels: int | None = None
) -> dict[str, Arrays]:
    """Decode images, all of the size of the first one; labels are positions of the classes.

    Shape: per part uint8 [N, C, H, W] and int64 [N]

    Raises: DataError that names an image which cannot be read, or is of another form.
    """
    from PIL import ImageOps  # imported late: only slow things need it
    from rich.console import Console
    from rich.progress import track

    paths = {part: [path for files in tree.values() for path in files] for part, tree in parts.items()}
    first = paths["train"][0]
    with opened(first) as image:
        ImageOps.exif_transpose(image, in_place=True)
        width, height = (size, size) if size else image.size
    if channels is None:
        channels = 3 if any(_has_colours(path) for of_part in paths.values() for path in of_part) else 1

    def decode(path: Path) -> np.ndarray:
        with opened(path) as image:
            if image.mode.startswith(DEEP):
                raise DataError(f"images need 8 bits per channel: {path} has more ({image.mode}). Convert it.")
            ImageOps.exif_transpose(image, in_place=True)
            if not size and image.size != (width, height):
                raise DataError(
                    f"all images must be of one size: {path} has {image.size[0]}x{image.size[1]} pixels, "
                    f"{first} {width}x{height}.\nType e.g. dataset.size={min(width, height)}"
                )
            image = image.convert("L" if channels == 1 else "RGB")
            image = image.resize((width, height), resample=2) if size else image  # 2: PIL.Image.BILINEAR
            return np.atleast_3d(np.asarray(image))  # [H, W, C]

    console, arrays = Console(stderr=True), {}
    for part, tree in parts.items():
        labels = np.repeat(np.arange(len(tree)), [len(files) for files in tree.values()])
        images = np.empty((len(labels), height, width, channels), np.uint8)
        bar = track(paths[part], f"Decoding {root}", console=console, disable=not console.is_terminal)
        for row, path in enumerate(bar):
            images[row] = decode(path)
        arrays[part] = images.transpose(0, 3, 1, 2), labels  # [N, H, W, C] -> [N, C, H, W]
    return arrays


def _has_colours(path: Path) -> bool:
    """By the form of the file; of one with a palette, by the colours that it uses."""
    with opened(path) as image:
        if image.mode in PALETTE:
            pixels = np.asarray(image.convert("RGB"))
            return bool((pixels != pixels[..., :1]).any())
        return image.mode not in GREY


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
