"""One run to be, as plain values, and the objects that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.errors import ConfigError
from normbench.runs import SCHEMA_VERSION, Run

if TYPE_CHECKING:
    from torch import nn

    from normbench.data import Source
    from normbench.instruments import Instrument
    from normbench.norms import NormScheme


@dataclass(frozen=True)
class Cell:
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

    @property
    def finished(self) -> bool:
        """Is this run over? Then it is not trained again. Raises ConfigError if another normbench wrote it."""
        run = Run(self.folder)
        try:
            version = run.summary.get("schema_version", SCHEMA_VERSION)
        except ValueError as error:
            raise ConfigError(f"{self.folder}/summary.json can't be read ({error}). Remove this folder.") from error
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{self.folder} was written by another version of normbench (files of schema {version}, this one has "
                f"{SCHEMA_VERSION}), whose defaults may differ. Choose another study=..., or remove this folder."
            )
        return bool(run.summary)


@dataclass(frozen=True)
class Parts:
    """The objects that a configuration names, built."""

    scheme: NormScheme
    model: Callable[[NormScheme, tuple[int, int, int], int], nn.Module]
    source: Callable[[Path], Source]
    instruments: list[Instrument]


@dataclass(frozen=True)
class Progress:
    """How a run is doing; told at each look at the loss."""

    step: int
    total: int
    samples_per_second: float
    loss: float
    accuracy: float | None  # on the validation set, at its last evaluation


Tell = Callable[[Progress], None]
Stop = Callable[[], bool]  # asked after every step: shall the run write its checkpoint and stop?
