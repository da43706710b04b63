"""What tests of looking share: a split, and all that looking must leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from normbench.instruments import Instrument
from normbench.norms import blocks
from normbench.training.loop import Batch


@dataclass
class Images:
    """A split: images [N, C, H, W] and labels, the same tensors each time."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, positions: Tensor, generator: torch.Generator | None = None) -> Batch:
        return self.images[positions], self.labels[positions]


def everything(model: nn.Module) -> dict[str, Any]:
    """All of a model, and of torch, that looking must leave alone; copied."""
    state: dict[str, Any] = {f"state {k}": v.clone() for k, v in model.state_dict().items()}
    state |= {f"gradient {k}": None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()}
    state |= {f"asks for gradient {k}": p.requires_grad for k, p in model.named_parameters()}
    for name, module in model.named_modules():
        state[f"mode {name}"] = module.training
        state[f"hooks {name}"] = len(module._forward_pre_hooks), len(module._forward_hooks)
    state |= {f"observer {k}": block.observer for k, block in blocks(model)}
    state |= {"random numbers": torch.get_rng_state(), "gradients on": torch.is_grad_enabled()}
    if torch.cuda.is_available():
        state["random numbers of the GPU"] = torch.cuda.get_rng_state()
    return state


def assert_same(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Equal to the bit, NaN included."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        if isinstance(value, Tensor):
            other = b[key]
            assert (value.shape, value.dtype, value.device) == (other.shape, other.dtype, other.device), key
            assert value.cpu().numpy().tobytes() == other.cpu().numpy().tobytes(), key
        else:
            assert value == b[key], key


def with_units(instrument: Instrument, units: int = 0) -> Instrument:
    """`instrument` in a run with this option `instruments.units`."""
    instrument.setting = SimpleNamespace(units=units)  # type: ignore[assignment]
    return instrument
