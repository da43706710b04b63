"""The device that a run computes on, and how torch calculates there: settings of the whole process."""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from normbench.errors import ConfigError

_LOCK = threading.RLock()  # torch's generators and settings are the whole process's
EXACT = {"allow_tf32": False, "fp32_precision": "ieee", "deterministic": True, "benchmark": False}


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


def device_name(device: str) -> str:
    """ "cpu", or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def calculate_exactly() -> None:
    """On a GPU, float32 keeps its 24 bits, of which TF32 drops 13, and convolutions repeat their bits.

    By default cuDNN uses TF32, which changes the gradients of a CNN by 1e-3 to 5e-3.
    """
    _set((module, key, EXACT[key]) for module, key, _ in _settings())


def keep_freed_memory() -> None:
    """Let C's allocator, where it is glibc, keep up to 1 GiB of what is freed for the tensors that come next.

    Otherwise those of some megabytes come from the system page by page, each time anew, which took 40% of the time of
    an evaluation of the CNN.
    """
    trim_threshold, mmap_threshold = -1, -3  # names of mallopt(3); 32 MiB is the most that the latter may be
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(mmap_threshold, 2**25)


def _settings() -> list[tuple[Any, str, Any]]:
    """(module, name, value) of torch's settings in EXACT."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9 and later
        parts = [(module, "fp32_precision", module.fp32_precision) for module in (matmul, cudnn.conv, cudnn.rnn)]
        # The older name is set first, too: torch.export reads it, which fails where the two disagree.
        tf32 = [(cudnn, "allow_tf32", cudnn.conv.fp32_precision == "tf32"), *parts]
    else:
        tf32 = [(module, "allow_tf32", module.allow_tf32) for module in (cudnn, matmul)]
    return [*tf32, *((cudnn, key, getattr(cudnn, key)) for key in ("deterministic", "benchmark"))]


def _set(settings: Iterable[tuple[Any, str, Any]]) -> None:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # some versions warn of allow_tf32
        for module, key, value in settings:
            setattr(module, key, value)


@contextmanager
def own_state() -> Iterator[None]:
    """Inside, torch's generators and settings are the run's; after it they are the caller's, as before.

    One thread of a process at a time.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with _LOCK, torch.random.fork_rng(devices):
        threads, settings = torch.get_num_threads(), _settings()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            _set(settings)
