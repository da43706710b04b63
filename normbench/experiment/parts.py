"""What a configuration names: runs, parts and images. Checked before they are used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from normbench.config import compose as composing
from normbench.config.compose import COMMON, Expanded
from normbench.config.run_config import RunConfig, data_may_change
from normbench.data import DataError, Dataset, Source, default_data_dir, prepare
from normbench.errors import ConfigError
from normbench.instruments import Instrument
from normbench.norms import NormScheme
from normbench.norms.schemes import make_scheme
from normbench.runs import Damaged, Run
from normbench.training.device import resolve_device

KEPT = 2  # data sets stay loaded for the next run in this process: a sweep has few, and each start checks all bytes
_datasets: dict[str, Dataset] = {}


@dataclass(frozen=True)
class Parts:
    """The objects that a configuration names, built."""

    scheme: NormScheme
    model: Callable[[NormScheme, tuple[int, int, int], int], nn.Module]
    source: Callable[[Path], Source]
    instruments: list[Instrument]


def compose(words: Iterable[str]) -> RunConfig:
    """The run that `normbench run WORDS` would train on this machine. Raises ConfigError."""
    return composing.compose(words, resolve_device)


def expand(words: Iterable[str], *, launchers: bool = False) -> Expanded:
    """The runs that `words` stand for on this machine: one, or those of a sweep. As `config.compose.expand`."""
    return composing.expand(words, resolve_device, launchers=launchers)


def build(config: Mapping[str, Any]) -> Parts:
    """The objects that a configuration names. Raises ConfigError if one can't be built."""
    found = composing.build(config)
    common = {key: value for key, value in config["norm"].items() if key in COMMON["norm"]}
    try:
        return Parts(
            scheme=make_scheme(found["norm"], **common),
            model=found["model"],
            source=found["dataset"],
            instruments=[make() for make in found["instruments"]],
        )
    except (TypeError, ValueError) as error:  # a scheme says itself what it does not accept
        raise ConfigError(str(error)) from error


def load_dataset(config: Mapping[str, Any], parts: Parts) -> Dataset:
    """The run's data, on its device. Raises ConfigError where they can't be had or the splits make no sense."""
    dataset = config["dataset"] | {"draw_seed": draw_seed(config)}
    key = json.dumps([dataset, config["data_dir"], config["device"]])
    if key not in _datasets or data_may_change(config):
        options = {key: value for key, value in dataset.items() if key in COMMON["dataset"]}
        folder, source = _data_dir(config), load_source(config, parts)
        if key not in _datasets or _datasets[key].checksum != source.checksum:
            try:
                _datasets[key] = prepare(source, **options, device=config["device"], data_dir=folder)
            except DataError as error:
                raise ConfigError(str(error)) from error
        if len(_datasets) > KEPT:
            del _datasets[next(iter(_datasets))]
    return _datasets[key]


def draw_seed(config: Mapping[str, Any]) -> int:
    """What draws the run's subset of the training images, and its wrong labels: its seed, unless the data set says.

    So runs of one seed share the draw, and an interval over seeds covers it. 0 where nothing is drawn: then the data
    are the same for all seeds.
    """
    dataset = config["dataset"]
    if dataset.get("train_fraction", 1) == 1 and not dataset.get("label_noise"):
        return 0
    return config["seed"] if dataset.get("draw_seed") is None else dataset["draw_seed"]


def load_source(config: Mapping[str, Any], parts: Parts) -> Source:
    """The images that the run's data set is cut from. Raises ConfigError where they can't be had."""
    try:
        return parts.source(_data_dir(config))
    except DataError as error:
        raise ConfigError(str(error)) from error


def _data_dir(config: Mapping[str, Any]) -> Path:
    try:
        return Path(config["data_dir"]).expanduser() if config["data_dir"] else default_data_dir()
    except RuntimeError as error:  # ~nobody
        raise ConfigError(
            f"the folder of data sets can't be had: {error} Check data_dir and $NORMBENCH_DATA."
        ) from error


def require_same_data(run_configs: Iterable[RunConfig]) -> None:
    """Raise ConfigError where the images of a finished run are no longer those that it has seen.

    What can't be loaded any more is passed over: a run that is over needs no images.
    """
    found: dict[str, str | None] = {}  # what each data set is now; one for all runs of a sweep
    for run_config in run_configs:
        if not data_may_change(run_config.config):
            continue
        key = json.dumps([run_config.config["dataset"], run_config.config["data_dir"]])
        if key not in found:
            try:
                found[key] = load_source(run_config.config, build(run_config.config)).checksum
            except ConfigError:
                found[key] = None
        if (now := found[key]) is not None:
            check_data(Run(run_config.folder), now)


def check_data(run: Run, checksum: str) -> None:
    """Raise ConfigError unless the images with this checksum are those that `run` was trained on."""
    try:
        seen = run.record.get("data_checksum")
    except Damaged:  # which is said where its files are looked at
        return
    if seen not in (None, checksum):
        raise ConfigError(
            f"the images have changed since {run.name} was trained (SHA-256 {checksum[:12]}..., then "
            f"{str(seen)[:12]}...). Put them back, or train anew with another study=..."
        )
