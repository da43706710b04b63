"""Images drawn from a split, the same for every run of a study."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normbench import seeding
from normbench.training.loop import Batch, Examples


def drawn(examples: Examples, count: int, batch_size: int, device: torch.device) -> list[Batch]:
    """`count` examples in random order, none twice, in batches of `batch_size`; a rest is smaller.

    Splits are kept in an order that mixes the classes evenly: neighbours differ more than those of a training batch.
    """
    augment = torch.Generator(device).manual_seed(0)
    return [examples.batch(positions, augment) for positions in _positions(examples, count, batch_size, device)]


class DrawnImages(Sequence[Tensor]):
    """The images of `drawn`, each batch made when it is asked for: a whole data set takes the memory of one batch.

    Augmentation draws anew for each batch, and the same each time.
    """

    def __init__(
        self, examples: Examples, count: int, batch_size: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.examples, self.dtype = examples, dtype
        self.positions = _positions(examples, count, batch_size, device)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        positions = self.positions[index]
        augment = torch.Generator(positions.device).manual_seed(index)
        return self.examples.batch(positions, augment)[0].to(self.dtype)


def _positions(examples: Examples, count: int, batch_size: int, device: torch.device) -> Sequence[Tensor]:
    order = torch.randperm(len(examples), generator=seeding.generator(0, "drawn"))[:count].to(device)
    return order.split(batch_size)
