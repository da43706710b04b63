"""Made-up images for tests and smoke runs: nothing to download, the same on every machine."""

from pathlib import Path

import numpy as np

from normbench.data.canonical import DataError, Source, canonical

CLASSES = 10


def synthetic(
    data_dir: Path, *, examples: int = 2000, size: int = 28, channels: int = 1, seed: int = 0, noise: int = 128
) -> Source:
    """Ten smooth random patterns, each image one of them, moved by up to an eighth of its side, plus noise.

    Whole-number arithmetic on raw bits only: numpy promises that the bits of PCG64 stay the same, for
    `Generator.normal` it does not, and floating-point libraries differ between platforms.

    Args:
        data_dir: not used.
        examples: training images; a quarter as many are made for testing.
        size: height and width in pixels.
        noise: largest change of a pixel, in grey levels of 0..255 (triangular distribution).
    """
    if not size or size < 8:
        raise DataError(f"size must be 8 or more: got {size}. Type e.g. dataset.size=28")
    if not channels:
        raise DataError("channels must be 1 or more: got null. Type e.g. dataset.channels=3")
    bits = np.random.PCG64(seed)
    patterns = _patterns(bits, size, channels)
    train, test = (_draw(bits, patterns, count, noise) for count in (examples, examples // 4))
    return canonical("synthetic", [f"pattern {k}" for k in range(CLASSES)], train, test, synthetic=True)


def _patterns(bits: np.random.PCG64, size: int, channels: int) -> np.ndarray:
    """Random 4 x 4 mosaics, blurred by three moving averages along each axis: int64 [10, C, H, W] in 64..191."""
    coarse = _whole(bits, CLASSES * channels * 16, 128).reshape(CLASSES, channels, 4, 4)
    cell = np.arange(size) * 4 // size
    image = coarse[:, :, cell][:, :, :, cell]
    width = size // 8
    for axis in (2, 3, 2, 3, 2, 3):
        image = np.sum([np.roll(image, step, axis) for step in range(-width, width + 1)], axis=0) // (2 * width + 1)
    return 64 + image


def _draw(bits: np.random.PCG64, patterns: np.ndarray, count: int, noise: int) -> tuple[np.ndarray, np.ndarray]:
    size = patterns.shape[2]
    labels = np.arange(count) % CLASSES
    reach = size // 8
    down, right = (_whole(bits, 2 * count, 2 * reach + 1) - reach).reshape(2, count, 1)
    rows = (np.arange(size) + down) % size  # [N, H]
    columns = (np.arange(size) + right) % size  # [N, W]
    clean = patterns.transpose(0, 2, 3, 1)[labels[:, None, None], rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    grain = _grain(bits, clean.size).reshape(clean.shape) * noise // 255
    images = np.clip(clean + grain, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)  # [N, H, W, C] -> [N, C, H, W]
    return images, labels


def _whole(bits: np.random.PCG64, count: int, below: int) -> np.ndarray:
    """Whole numbers 0 .. below - 1."""
    return (bits.random_raw(count) % np.uint64(below)).astype(np.int64)


def _grain(bits: np.random.PCG64, count: int) -> np.ndarray:
    """Differences of two random bytes, -255..255, eight bytes from each draw."""
    raw = bits.random_raw(-(-2 * count // 8)).astype("<u8").view(np.uint8)[: 2 * count].astype(np.int16)
    return raw[:count] - raw[count:]
