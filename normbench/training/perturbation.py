"""A weight perturbation during training: the weights of one block are multiplied, later layers see other inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from normbench.errors import ConfigError
from normbench.norms import Block, batch_statistics, blocks, preserve_state
from normbench.training.callbacks import Callback, Log
from normbench.training.loop import Batch, Step, loss_and_accuracy


@dataclass(frozen=True)
class Perturbation:
    """After `step` updates, the weight w of block number `block` (from 0) becomes `factor` w; biases stay.

    Where w = g v / |v|, it is g that is multiplied: a longer v would leave w as it is.
    """

    step: int
    factor: float
    block: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Perturbation | None:
        """What the configuration asks for; None: no perturbation."""
        step = config["perturb_step"]
        return None if step is None else cls(step, config["perturb_factor"], config["perturb_block"])

    def apply(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Multiply the weights. Returns the loss on `batch` before and after, with the statistics of the batch
        ("training") and with the running ones ("evaluation"); without dropout.
        """
        name, weight = self._target(model)
        before = _losses(model, batch, "before")
        with torch.no_grad():
            weight.mul_(self.factor)
        return {"step": self.step, "factor": self.factor, "block": name, **before, **_losses(model, batch, "after")}

    def check(self, model: nn.Module, total: int) -> None:
        """Raises ConfigError if there is no such step or block in the run."""
        if self.step >= total:
            raise ConfigError(f"perturb_step must be below the run's {total:,} updates: got {self.step}.")
        self._target(model)

    def _target(self, model: nn.Module) -> tuple[str, nn.Parameter]:
        able = [(name, block) for name, block in blocks(model) if isinstance(block, Block)]
        if self.block >= len(able):
            known = ", ".join(f"{i} ({name})" for i, (name, _) in enumerate(able))
            raise ConfigError(
                f"perturb_block must be one of {known}: got {self.block}. Recurrent cells can't be perturbed."
            )
        name, block = able[self.block]
        parts: Any = getattr(block.linear, "parametrizations", None)
        return name, block.linear.weight if parts is None else parts.weight.original0  # type: ignore[return-value]


def _losses(model: nn.Module, batch: Batch, when: str) -> dict[str, float]:
    losses = {}
    for mode in ("training", "evaluation"):
        with batch_statistics(model) if mode == "training" else preserve_state(model):
            losses[f"{mode}_{when}"] = loss_and_accuracy(model, [batch])[0]
    return losses


class PerturbWeights(Callback):
    """Perturbs the weights when it is time; the losses become part of the summary."""

    def __init__(self, log: Log, model: nn.Module, perturbation: Perturbation) -> None:
        self.log, self.model, self.perturbation = log, model, perturbation

    def due(self, index: int) -> bool:
        return index == self.perturbation.step

    def after(self, step: Step) -> None:
        if self.due(step.index) and step.batch is not None:
            with self.log.clock.timed("measuring"):
                self.log.results["perturbation"] = self.perturbation.apply(self.model, step.batch)
