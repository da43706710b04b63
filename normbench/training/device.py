"""The device that a run computes on."""

from __future__ import annotations

import torch

from normbench.errors import ConfigError


def resolve_device(name: str) -> str:
    """ "auto" -> "cuda" or "cpu". Raises ConfigError if there is no such device here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"device must be one that this machine has: got {name}. Use device=auto.") from None
    return str(device)
