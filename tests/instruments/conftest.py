"""What tests of instruments share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from looking import Images
from torch import Tensor, nn

from normbench.instruments import Setting
from normbench.norms import Recorded
from normbench.training.loop import Batch, Update


class Showing(Recorded):
    """A layer that shows what it is told to: each unit's input times `scale` plus `shift`."""

    def __init__(self, scale: Any = 1.0, shift: Any = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = torch.as_tensor(scale), torch.as_tensor(shift)
        self.nothing = nn.Parameter(torch.zeros(()))  # a model has parameters

    def forward(self, x: Tensor) -> Tensor:
        view = (-1, *[1] * (x.dim() - 2))
        y = x * self.scale.expand(x.shape[1]).view(view) + self.shift.expand(x.shape[1]).view(view)
        self.show("linear", y)
        return y


@pytest.fixture
def showing() -> type[Showing]:
    return Showing


@pytest.fixture
def setting_of(batch_of: Callable[..., Batch]) -> Callable[..., Setting]:
    """`setting_of(total=100)`: a setting with 60 training and 40 validation images, and what else is given."""

    def setting(model: nn.Module | None = None, **given: Any) -> Setting:
        total = given.get("total", 100)
        parameters = model.parameters() if model is not None else [nn.Parameter(torch.zeros(()))]
        usual: dict[str, Any] = {
            "total": total,
            "snapshots": frozenset(range(total + 1)),
            "batch_size": 8,
            "train": Images(*batch_of(60)),
            "validation": Images(*batch_of(40, seed=1)),
            "images": 60,
            "optimizer": torch.optim.SGD(parameters, lr=0.1),
            "update": Update(),
            "seconds": lambda: {"training": 1.0, "evaluating": 0.5, "measuring": 0.25},
        }
        return Setting(**usual | given)

    return setting
