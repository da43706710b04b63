"""A finished run's network, as it was when training ended: what evaluate, fold and explain work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normbench.errors import ConfigError, UserError
from normbench.runs import EVERYTHING, Damaged, Run

if TYPE_CHECKING:
    from torch import nn

    from normbench.data import Dataset


@dataclass(frozen=True)
class Trained:
    """A run, its data, and its network.

    Args:
        model: in evaluation mode, on `device`.
        config: the run's, with what was to be different, made again from our files: see `config.compose.rebuild`.
        statistics: the kind that its scheme works with in inference.
    """

    run: Run
    dataset: Dataset
    model: nn.Module
    device: str
    config: dict[str, Any]
    statistics: str


def load_trained(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    own_statistics: bool = True,
    config_dirs: Sequence[Path] = (),
) -> Trained:
    """The network and the data of the run in `folder`. Raises UserError where they can't be had.

    Nothing in the folder is executed: its parts are made again from the names of options and plain values.

    Args:
        changes: values of its configuration that are to be different: data_dir, device, batch_size.
        own_statistics: those that the run has evaluated it with; False: the exponential averages, as saved.
        config_dirs: folders of the user's own schemes, models and data sets.
    """
    run = require_complete(folder)
    import torch

    from normbench.config.compose import rebuild
    from normbench.experiment import build, check_data, load_dataset, set_up_torch
    from normbench.training.device import resolve_device
    from normbench.training.evaluation import load_kind

    try:
        made = rebuild(run.choices, run.config, config_dirs)
    except ConfigError as error:
        raise UserError(f"{folder}/config.yaml: {error} Schemes of your own: --config-dir DIR.") from error
    here = made["device"].split(":")[0] == "cpu" or torch.cuda.is_available()
    config = {**made, "device": made["device"] if here else "cpu", **(changes or {})}
    config["device"] = resolve_device(config["device"])
    set_up_torch(config)
    parts = build(config)
    dataset = load_dataset(config, parts)
    check_data(run, dataset.checksum)
    try:
        model = parts.model(parts.scheme, dataset.shape, len(dataset.classes))
        state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # of a file that was cut off, torch raises nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}/model.pt does not fit the run's network: {reason}") from error
    model, kind = model.to(config["device"]).eval(), parts.scheme.statistics
    if own_statistics:
        load_kind(model, kind, dataset.train, made["batch_size"], made["seed"])
    return Trained(run, dataset, model, config["device"], config, kind)


def require_complete(folder: Path) -> Run:
    """The run in `folder`, over and with its weights. Raises UserError. Imports no torch, which takes seconds."""
    run = Run(folder)
    if not (folder / "config.yaml").is_file():
        found = "holds no run" if folder.is_dir() else "is no folder"
        if inside := sorted(path.parent.name for path in folder.glob("*/config.yaml")):
            hint = f" It is a study; its runs are {', '.join(inside[:4])}{' ...' if inside[4:] else ''}."
        else:
            others = sorted(path.parent.as_posix() for path in Path("results").glob("*/*/model.pt"))[:3]
            hint = f" There are, for instance: {', '.join(others)}." if others else ""
        raise UserError(f"a run's folder is needed, results/<study>/<run>: {folder} {found}.{hint}")
    try:
        status, _ = run.status, run.config
        run.check_seal(EVERYTHING, run.record.get("identity"))
    except (Damaged, OSError) as error:
        raise UserError(f"{folder} can't be read: {error}") from error
    if status != "complete":
        raise UserError(f"a run must be complete to have trained weights: {folder} is {status}.")
    if not (folder / "model.pt").is_file():
        raise UserError(f"{folder} has no weights (model.pt): it ran with save_model=false, or the file was removed.")
    return run
