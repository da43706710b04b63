"""What an instrument is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from normbench.training import Step

Row = dict[str, Any]  # columns of layers.csv: layer, tensor, and the instrument's own
Schedule = Callable[[int], bool]  # updates done -> is it time to measure?


class Instrument(Protocol):
    """Something measured on a model between two updates.

    Args:
        name: stands in the column `instrument` of each row.
        columns: the names of its own columns.
    """

    name: str
    columns: Sequence[str]

    def prepare(self, total: int) -> None:
        """Told once, before the first step, how many steps the run will have."""

    def due(self, index: int) -> bool:
        """Is it time, after `index` updates? One that compares before and after an update is due at t and t + 1."""
        ...

    def measure(self, step: Step, model: nn.Module, probe: Tensor) -> Iterable[Row]:
        """Look at `model`, with images `probe` [N, C, H, W] that are the same for every run of a study."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it must remember: tensors and plain values. A resumed run's rows equal an undisturbed one's."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
