"""One run to be, as plain values, and the objects that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from normbench.data import Source
    from normbench.instruments import Instrument
    from normbench.norms import NormScheme


@dataclass(frozen=True)
class RunConfig:
    """One run to be: plain values, ready to be sent to another process.

    Args:
        name: of its folder: readable, and ending in a hash of its identity.
        choices: which option of each group: {"norm": "batch", ...}.
        config: every value, resolved; the parts of a group still as `_target_` dictionaries.
        identity: what makes it this run and no other: choices, values that differ from the defaults, threads, device.
        words: the shortest command line that repeats it.
    """

    name: str
    choices: dict[str, str]
    config: dict[str, Any]
    identity: dict[str, Any]
    words: list[str]

    @property
    def folder(self) -> Path:
        return Path(self.config["results_dir"]).expanduser().absolute() / self.config["study"] / self.name


@dataclass(frozen=True)
class Parts:
    """The objects that a configuration names, built."""

    scheme: NormScheme
    model: Callable[[NormScheme, tuple[int, int, int], int], nn.Module]
    source: Callable[[Path], Source]
    instruments: list[Instrument]
