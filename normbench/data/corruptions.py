"""Images spoilt on purpose, a whole batch at once on its device: what a network was not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from normbench.noise import Key

if TYPE_CHECKING:
    from normbench.data.dataset import Split

# What severities 1 to 5 stand for. 5 is meant to ruin what 1 leaves nearly as it was, on MNIST and on CIFAR-10 alike.
STRENGTHS: dict[str, tuple[float, ...]] = {
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # share of the contrast that is left, around the image's mean
    "brightness": (0.6, 0.4, 0.25, 0.15, 0.1),  # share of the light that is left: brighter would leave MNIST as it is
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation of Gaussian noise, white being 1
    "blur": (0.02, 0.04, 0.06, 0.08, 0.1),  # standard deviation of the Gaussian, the shorter side being 1
    "rotate": (10.0, 20.0, 30.0, 45.0, 60.0),  # degrees, anticlockwise; black corners
    "invert": (0.2, 0.4, 0.6, 0.8, 1.0),  # share of the negative in a mixture with the image; at 0.5 all is grey
}
CORRUPTIONS = tuple(STRENGTHS)
SEVERITIES = (1, 2, 3, 4, 5)
TABLE = 2**20  # numbers that noise is read from


def check_corruption(name: object, severity: object = 1) -> None:
    """Raise ValueError unless there is such a corruption, of such a severity."""
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(CORRUPTIONS)}: got {name}.")
    if type(severity) is not int or severity not in SEVERITIES:
        raise ValueError(
            f"corruption.severity must be a whole number, 1 to 5: got {severity}. Type e.g. corruption.severity=3."
        )


def corrupt(images: Tensor, name: str, severity: int, positions: Tensor) -> Tensor:
    """`images` with one of CORRUPTIONS; severity 0 leaves them alone.

    Args:
        positions: which image each is (int64 [B]): its noise depends on that, and not on the images beside it, nor on
            a seed. A corrupted test set is one set of images for all runs, as the test set itself is.

    Shape: uint8 [B, C, H, W]

    Raises: ValueError for unknown names and severities.

    Source: severities 1 to 5, the strengths of noise and contrast: Hendrycks & Dietterich 2019, arXiv:1903.12261.
    """
    if severity == 0:
        return images
    check_corruption(name, severity)
    from torchvision.transforms.v2 import functional  # takes seconds to import

    strength = STRENGTHS[name][severity - 1]
    if name in ("contrast", "brightness"):
        # torchvision takes 1 or 3 channels; of any other number each becomes an image.
        pictures = images if images.shape[1] in (1, 3) else images.flatten(0, 1).unsqueeze(1)
        return getattr(functional, f"adjust_{name}")(pictures, strength).view_as(images)
    if name == "blur":  # all images as the channels of one: a tenth of the time on a CPU
        height, width = images.shape[2:]
        side = min(height, width) if height > 1 else width  # a signal is blurred along its one row
        size = 2 * min(math.ceil(3 * strength * side), side - 1) + 1
        sizes = [size, min(size, 2 * height - 1)]
        channels = images.flatten(0, 1).unsqueeze(0)
        return functional.gaussian_blur(channels, sizes, [strength * side] * 2).view_as(images)
    if name == "rotate":
        return functional.rotate(images, strength, interpolation=functional.InterpolationMode.BILINEAR)
    if name == "invert":
        changed = images.float().lerp(functional.invert(images).float(), strength)
    else:  # noise: torchvision draws for the batch as a whole; here each image reads a table from a place of its own
        each = torch.arange(images[0].numel(), device=images.device)
        places = (positions.unsqueeze(1) * 648_391 + each) % TABLE  # odd: no two images start at one place
        changed = images + 255 * strength * _normal(images.device)[places].view(images.shape)
    return changed.round_().clamp_(0, 255).to(torch.uint8)


@cache
def _normal(device: torch.device) -> Tensor:
    """Drawn on the CPU: the same noise on every device."""
    return torch.randn(TABLE, generator=torch.Generator().manual_seed(0)).to(device)


@dataclass(frozen=True, eq=False)
class Corrupted:
    """A split whose images are corrupted first, then binarized, scaled and whitened as always."""

    split: Split
    name: str
    severity: int

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, positions: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """As `Split.batch`, without augmentation. Shape: float32 [B, C, H, W], int64 [B]"""
        rows = self.split.index.index_select(0, positions)
        images = corrupt(self.split.images.index_select(0, rows), self.name, self.severity, rows)
        return self.split.scaled(images), self.split.labels.index_select(0, rows)
