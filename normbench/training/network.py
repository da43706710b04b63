"""A run's network before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from normbench import seeding
from normbench.config.run_config import Parts
from normbench.data import Dataset
from normbench.models import initialize


def new_model(config: Mapping[str, Any], parts: Parts, dataset: Dataset) -> nn.Module:
    """The network before training, its weights drawn, on its device; torch's own generators start anew, too."""
    seed, options = config["seed"], config["model"]
    seeding.seed_everything_else(seed)
    model: nn.Module = parts.model(parts.scheme, dataset.shape, len(dataset.classes))
    drawn = {name: options[f"init_{name}"] for name in ("std", "scale") if f"init_{name}" in options}
    initialize(model, parts.scheme, options["init"], lambda name: seeding.generator(seed, "weights", name), **drawn)
    return model.to(config["device"])


def start(model: nn.Module, parts: Parts, dataset: Dataset) -> None:
    """Let the scheme set the network up from a first batch, where it does and is asked to."""
    scheme, train = parts.scheme, dataset.train
    if scheme.data_dependent_init is not None and scheme.init_images > 0:
        count = min(scheme.init_images, len(train))
        scheme.data_dependent_init(model, train.batch(torch.arange(count, device=train.images.device))[0])
