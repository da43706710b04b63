"""What the instruments of the networks of a stack compute, computed for all of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from normbench.instruments.instrument import Instruments, Row, StackedInstrument, read
from normbench.instruments.probe import Key, Probe, ascending
from normbench.norms import blocks
from normbench.training.loop import Step
from normbench.training.stack import StackedModel, stacked, vmap


class StackedInstruments:
    """Lets the runs of a stack share the pass through their networks, and what the instruments make of it.

    Whoever asks first has it computed for all; what a run does with its part, it does when it asks. Other instruments,
    and those of users, see each network alone.

    Args:
        runs: the instruments of each run; they are equally configured.
        paid: called with the number of the run that asked, an instrument's name and the seconds that it took for all.
    """

    def __init__(
        self, stack: StackedModel, runs: Sequence[Instruments], paid: Callable[[int, str, float], None]
    ) -> None:
        self.stack, self.runs, self.paid = stack, dict(enumerate(runs)), paid
        self.of_step: dict[Any, Any] = {}
        if not runs[0].instruments:
            return
        self.probes = [run.probe for run in runs]
        template = copy(self.probes[0])
        template.model, names = stack.template, set(template.blocks)
        template.blocks = {name: block for name, block in blocks(stack.template) if name in names}
        self.recorded = _Recorded(template)
        self.images = stacked([probe.images for probe in self.probes])
        for k, run in enumerate(runs):
            run.rows = partial(self.rows, k)  # type: ignore[method-assign]
            run.probe.shared = partial(self._of_network, k)

    def leave(self, k: int) -> None:
        """Run k is over."""
        del self.runs[k]

    def forget(self) -> None:
        """The networks have changed."""
        self.of_step.clear()

    def rows(self, k: int, place: int, step: Step) -> list[Row]:
        """As `Instruments.rows`, of run k."""
        run = self.runs[k]
        instrument = run.instruments[place]
        if not isinstance(instrument, StackedInstrument):
            return read(instrument.measure(step, run.model, run.probe))
        if place not in self.of_step:
            begin = time.perf_counter()
            members: Any = [one.instruments[place] for one in self.runs.values()]
            probes = [one.probe for one in self.runs.values()]
            for probe in probes:
                probe.forget(step.index)
            rows = type(instrument).measure_stack(members, step, probes)
            self.of_step[place] = dict(zip(self.runs, rows, strict=True))
            self.paid(k, instrument.name, time.perf_counter() - begin)
        return read(self.of_step[place][k])

    def _of_network(self, k: int, name: Any) -> Any:
        """What the probe of network k keeps under this name, see `Probe`."""
        if name not in self.of_step:
            if isinstance(name, str):  # a bn_mode
                self.of_step["stacked", name] = found = self._record(name)
                of_each = zip(*found.values(), strict=True)
                self.of_step[name] = [dict(zip(found, values, strict=True)) for values in of_each]
            else:
                values, key, bn_mode = name
                self._of_network(k, bn_mode)
                self.of_step[name] = ascending(values(self.of_step["stacked", bn_mode][key]))
        return self.of_step[name][k]

    def _record(self, bn_mode: str) -> dict[Key, Tensor]:
        """The tensors of all networks by one pass. Shape: [K, N, C, P]"""
        self.recorded.probe.step = self.probes[0].step
        parameters, buffers = ({f"model.{name}": tensor.detach() for name, tensor in of.items()}
                               for of in (self.stack.parameters, self.stack.buffers))  # fmt: skip

        def record(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> dict[Key, Tensor]:
            found: dict[Key, Tensor] = functional_call(self.recorded, (parameters, buffers), (bn_mode, images))
            return found

        dims = (0, 0, None if self.images is self.probes[0].images else 0)
        found: dict[Key, Tensor] = vmap(record, dims, "same")(parameters, buffers, self.images)
        return found


class _Recorded(nn.Module):
    """A probe's pass as a module, which `functional_call` needs."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.model, self.probe = probe.model, probe

    def forward(self, bn_mode: str, images: Tensor) -> dict[Key, Tensor]:
        return self.probe.record(bn_mode, images)
