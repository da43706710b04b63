"""Images drawn from a split, the same for every run of a study."""

from __future__ import annotations

import torch

from normbench import seeding
from normbench.training import Batch, Examples


def drawn(examples: Examples, count: int, batch_size: int, device: torch.device) -> list[Batch]:
    """`count` examples in random order, none twice, in batches of `batch_size`; a rest is smaller.

    Splits are kept in an order that mixes the classes evenly: neighbours differ more than those of a training batch.
    """
    order = torch.randperm(len(examples), generator=seeding.generator(0, "drawn"))[:count].to(device)
    augment = torch.Generator(device).manual_seed(0)
    return [examples.batch(positions, augment) for positions in order.split(batch_size)]
