"""When to measure."""

from __future__ import annotations

import numpy as np


def log_spaced(total: int, snapshots: int) -> list[int]:
    """At most `snapshots` steps from 0 to `total`, both included, denser at the start: its first 1% matters most.

    The distances grow geometrically; where they would be under one step, every step is taken.
    """
    if total <= 0 or snapshots <= 2:
        return [0] if total <= 0 else [0, total]
    grown = np.geomspace(1, total, snapshots - 1)
    chosen = np.maximum(np.round(grown).astype(int), np.arange(1, snapshots))  # no step twice while steps are few
    return [0, *np.unique(np.minimum(chosen, total)).tolist()]


def evenly_spaced(total: int, snapshots: int) -> list[int]:
    """At most `snapshots` evenly spaced steps from 0 to `total`, both included."""
    return np.unique(np.linspace(0, max(total, 0), max(snapshots, 2)).round().astype(int)).tolist()


def snapshots(schedule: str, total: int, count: int) -> frozenset[int]:
    """After which updates to look: `count` of them, "log" (log_spaced) or "every" (evenly_spaced)."""
    return frozenset({"log": log_spaced, "every": evenly_spaced}[schedule](total, count))
