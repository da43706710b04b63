"""A blow in the middle of training: the weights of one block are multiplied, and later layers see other inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from normbench.errors import ConfigError
from normbench.instruments.observing import observing
from normbench.norms import Block, blocks
from normbench.training.loop import Batch, loss_and_accuracy


@dataclass(frozen=True)
class Shock:
    """After `step` updates, the weight w of block number `block` (from 0) becomes `factor` w; biases stay.

    Where w = g v / |v|, it is g that is multiplied: a longer v would leave w as it is.
    """

    step: int
    factor: float
    block: int

    def apply(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Strike. Returns the loss on `batch` before and after, with the statistics of the batch ("training") and with
        the running ones ("evaluation"); without dropout.
        """
        found: dict[str, Any] = {"step": self.step, "factor": self.factor, "block": self._target(model)[0]}
        found |= _losses(model, batch, "before")
        with torch.no_grad():
            self._target(model)[1].mul_(self.factor)
        return found | _losses(model, batch, "after")

    def check(self, model: nn.Module, total: int) -> None:
        """Raises ConfigError if there is no such step or block in the run."""
        if self.step >= total:
            raise ConfigError(f"shock_step must be below the run's {total:,} updates: got {self.step}.")
        self._target(model)

    def _target(self, model: nn.Module) -> tuple[str, nn.Parameter]:
        able = [(name, block) for name, block in blocks(model) if isinstance(block, Block)]
        if self.block >= len(able):
            known = ", ".join(f"{i} ({name})" for i, (name, _) in enumerate(able))
            raise ConfigError(f"shock_block must be one of {known}: got {self.block}. Recurrent cells can't be struck.")
        name, block = able[self.block]
        parts: Any = getattr(block.linear, "parametrizations", None)
        return name, block.linear.weight if parts is None else parts.weight.original0  # type: ignore[return-value]


def shock_of(config: Mapping[str, Any]) -> Shock | None:
    """What the configuration asks for; None: no shock."""
    if config["shock_step"] is None:
        return None
    return Shock(config["shock_step"], config["shock_factor"], config["shock_block"])


def _losses(model: nn.Module, batch: Batch, when: str) -> dict[str, float]:
    found = {}
    for mode, way in (("training", "batch"), ("evaluation", "running")):
        with observing(model, way):
            found[f"{mode}_{when}"] = loss_and_accuracy(model, [batch])[0]
    return found
