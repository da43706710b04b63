"""How the values inside recurrent layers change along a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from normbench.instruments.distances import moments
from normbench.instruments.instrument import Instrument, Row
from normbench.instruments.probe import Probe
from normbench.training.loop import Step


class TimeSteps(Instrument):
    """Of each tensor of each recurrent layer at each time step that the probe looks at, and in each way of looking:

        mean, std  over images and units

    `time` counts from 0. Other layers have no rows.
    """

    name = "time_steps"
    columns: Sequence[str] = ("way", "time", "mean", "std")

    def measure(self, step: Step, model: nn.Module, probe: Probe) -> Iterator[Row]:
        for way in probe.ways:
            for (layer, tensor), values in probe.tensors(way).items():
                if times := probe.times(layer):
                    by_time = values.movedim(2, 0).flatten(1)  # [N, C, T] -> [T, N * C]
                    for time, mean, std in zip(times, *torch.stack(moments(by_time)).tolist(), strict=True):
                        yield {"layer": layer, "tensor": tensor, "way": way, "time": time, "mean": mean, "std": std}
