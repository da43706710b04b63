"""What a run is around an instrument, in small."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from looking import Images
from torch import nn

from normbench.instruments import Instrument, Probe, Row, Setting
from normbench.training.loop import Step, Update


def split(n: int, shape: Any = (1, 8, 8), classes: int = 5, seed: int = 0, **options: Any) -> Images:
    """`n` made-up images."""
    g = torch.Generator().manual_seed(seed)
    return Images(
        torch.randn(n, *shape, generator=g).to(**options), torch.arange(n).to(options.get("device")) % classes
    )


def run_around(
    instrument: Instrument,
    model: nn.Module,
    train: Images,
    validation: Images,
    batch_size: int = 8,
    total: int = 10,
    snapshots: Iterable[int] = (),
    **options: Any,
) -> Probe:
    """Tell `instrument` of a run of `total` updates, and return its probe: all validation images."""
    seconds = {"training": 2.0, "evaluating": 0.5, "measuring": 1.0}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    instrument.prepare(
        Setting(total=total, snapshots=frozenset(snapshots), batch_size=batch_size, train=train, validation=validation,
                images=len(train), optimizer=optimizer, update=Update(), seconds=lambda: seconds)
    )  # fmt: skip
    return Probe(model, validation.images, validation.labels, batch_size, **options)


def at(index: int) -> Step:
    return Step(index, None, None)


def rows(instrument: Instrument, index: int, model: nn.Module, probe: Probe) -> list[Row]:
    """What it says after `index` updates; each row has all of its columns and no others."""
    found = list(instrument.measure(at(index), model, probe))
    assert all(set(row) == {"layer", "tensor", *instrument.columns} for row in found)
    return found


def through_a_checkpoint(instrument: Instrument, fresh: Instrument) -> Instrument:
    """`fresh`, with the state of `instrument` as a checkpoint keeps it."""
    file = io.BytesIO()
    torch.save(instrument.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def in_training(network: nn.Module, images: Images, updates: int = 2) -> nn.Module:
    """`network` in the middle of training: weights and statistics moved, gradients there, its output frozen."""
    torch.manual_seed(0)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(updates):
        optimizer.zero_grad()
        F.cross_entropy(network(images.images[:8]), images.labels[:8]).backward()
        optimizer.step()
    network.output.eval()  # type: ignore[operator, union-attr]
    return network
