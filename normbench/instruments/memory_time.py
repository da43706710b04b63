"""What a run costs: time per update, memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.lookahead import in_training
from normbench.instruments.probe import Probe
from normbench.training.loop import Step
from normbench.training.memory import saved_for_backward, size


class MemoryTime(Instrument):
    """Of the network as a whole (`layer` is empty):

        training_ms, evaluating_ms, measuring_ms   milliseconds per update so far
        parameters, buffers                        bytes
        saved                                      bytes kept for the backward pass of one batch (no parameters,
                                                   no buffers) = saved_per_image x batch + saved_constant
        peak                                       most bytes taken on the GPU so far, instruments' included; empty on a
                                                   CPU, where a process's size says little

    What is saved is counted once, in two passes in the mode of training: over one batch, and over an image more.
    """

    name = "memory_time"
    columns: Sequence[str] = (
        "training_ms", "evaluating_ms", "measuring_ms",
        "parameters", "buffers", "saved", "saved_per_image", "saved_constant", "peak",
    )  # fmt: skip

    def __init__(self) -> None:
        self._saved: dict[str, int] = {}

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        row: Row = {"layer": "", "tensor": ""}
        for what, seconds in self.setting.seconds().items():
            row[f"{what}_ms"] = 1000 * seconds / step.index if step.index else ""
        row["parameters"], row["buffers"] = size(model.parameters()), size(model.buffers())
        self._saved = self._saved or saved_by_batch(model, probe.images[0], self.setting.batch_size)
        device = probe.images.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else ""
        yield row | self._saved | {"peak": peak}

    def state_dict(self) -> dict[str, Any]:
        return {"saved": self._saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._saved = state["saved"]


def saved_by_batch(model: nn.Module, image: Tensor, batch_size: int) -> dict[str, int]:
    """Bytes kept for the backward pass of a batch of such images: all, those that each image adds, and the rest."""
    with in_training(model):
        one, more = (saved_for_backward(model, image.expand(n, *image.shape).clone())
                     for n in (batch_size, batch_size + 1))  # fmt: skip
    per_image = more - one
    return {"saved": one, "saved_per_image": per_image, "saved_constant": one - per_image * batch_size}
