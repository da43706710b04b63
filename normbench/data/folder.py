"""A user's own images, in folders named after their classes."""

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from normbench.data.cut import stratified_order
from normbench.data.image_folder import opened, read_images
from normbench.data.progress import progress
from normbench.data.source import DataError, Source, canonical, check_share, check_whole, in_canonical_order
from normbench.data.store import cached

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("normbench")

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L")  # PIL's modes
DEEP = ("I", "F")  # more than 8 bits, where PIL would cut values off at 255
TEST_SEED = 0
HINT = "Type dataset.path=FOLDER, one that holds train/<class>/<images> and maybe test/<class>/<images>."

Files = dict[str, list[tuple[str, int, int]]]  # class -> name, bytes, time of change in ns


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
    check_share("test_share", test_share, "(0, 1)", 0.2)
    if size is not None:
        check_whole("size", size, 1)
    # str: a folder may be called 2024. Path's own expanduser raises for an unknown user.
    root = Path(os.path.expanduser(str(path))).resolve()  # noqa: PTH111
    parts = {part: _files(root / part) for part in ("train", "test") if part == "train" or (root / part).exists()}
    if odd := sorted(set(parts["train"]) ^ set(parts.get("test", parts["train"]))):
        raise DataError(
            f"train and test need the same classes: in {root} only one of them has {', '.join(odd)}. "
            "Add those folders to the other, or take them away."
        )
    key = hashlib.sha256(repr((root, size, len(parts) == 1 and test_share)).encode()).hexdigest()[:12]
    stamp = hashlib.sha256(repr(parts).encode()).hexdigest()
    return cached(f"folder-{key}", data_dir, lambda: _decode(root, parts, size, test_share), stamp=stamp)


def _files(part: Path) -> Files:
    """The images of each class in a folder, by name.

    Raises: DataError unless there are two classes or more, with an image each.
    """
    files: Files = {}
    ignored = 0
    try:
        for name in sorted(entry.name for entry in os.scandir(part) if entry.is_dir() and entry.name[0] != "."):
            entries = list(os.scandir(part / name))
            images = [entry for entry in entries if entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "."]
            files[name] = sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in images)
            ignored += len(entries) - len(images)
    except OSError as error:
        raise DataError(f"cannot read {error.filename} ({error.strerror}). {HINT}") from error
    if len(files) < 2:
        raise DataError(f"{part} must hold folders of two classes or more: found {', '.join(files) or 'none'}. {HINT}")
    if empty := [name for name, images in files.items() if not images]:
        raise DataError(
            f"every class needs an image: {part / empty[0]} holds no {', '.join(SUFFIXES)}. "
            "Put some there, or take the folder away."
        )
    if ignored:
        log.info("%s: %d files are ignored, because their names do not end as those of images", part, ignored)
    return files


def _decode(root: Path, parts: dict[str, Files], size: int | None, test_share: float) -> Source:
    groups = {
        part: [[root / part / name / file for file, *_ in files] for name, files in classes.items()]
        for part, classes in parts.items()
    }
    first = groups["train"][0][0]
    with opened(first) as image:
        grey, (width, height) = image.mode in GREY, (size, size) if size else image.size

    def convert(image: "Image") -> "Image":
        path = image.filename  # type: ignore[attr-defined]
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
        return image.resize((width, height), resample=2) if size else image  # 2: PIL.Image.BILINEAR

    total = sum(len(group) for part in groups.values() for group in part)
    shape = (height, width, 1 if grey else 3)
    with progress(f"Decoding {root}, once", total, "images") as advance:
        arrays = [read_images(part, shape, convert, advance) for part in groups.values()]
    if len(arrays) == 1:
        images, labels = in_canonical_order(*arrays[0])
        order, count = stratified_order(labels, TEST_SEED), round(test_share * total)
        if not 0 < count < total:
            raise DataError(f"train and test need an image: test_share={test_share} of {total} leaves one without.")
        arrays = [(images[rows], labels[rows]) for rows in (order[count:], order[:count])]
    return canonical("folder", tuple(parts["train"]), *arrays)
