"""How long a run will take, from runs that are over."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from normbench.runs import Run

MOST = 200  # earlier runs that are read


class Timings:
    """Seconds per update, and for the rest (evaluating, measuring), of runs like the one asked for.

    "Like" is tried in three widths: all that matters the same; model, scheme and batch size; model and batch size.
    """

    def __init__(self) -> None:
        self.known: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def learn(self, choices: Mapping[str, str], config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
        """Take in a run that is over."""
        if summary.get("status") == "complete" and summary["steps"]:
            seconds = summary["seconds"]
            rest = seconds["evaluating"] + seconds["measuring"]
            for key in _keys(choices, config):
                self.known[key].append((seconds["training"] / summary["steps"], rest))

    def learn_from(self, study: Path) -> None:
        """Take in the newest runs that are over, of `study` first and then of the others beside it."""
        found = []
        for path in study.parent.glob("*/*/summary.json"):
            with suppress(OSError):
                found.append((path.parent.parent.name == study.name, path.stat().st_mtime, path.parent))
        for *_, folder in sorted(found, reverse=True)[:MOST]:
            run = Run(folder)
            # a foreign or half-written folder tells nothing
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                self.learn(run.choices, run.config, run.summary)

    def seconds(self, choices: Mapping[str, str], config: Mapping[str, Any], steps: int) -> float | None:
        """Of a run of `steps` updates; None if no run like it is known."""
        for key in _keys(choices, config):
            if known := self.known.get(key):
                per_step, rest = (statistics.median(values) for values in zip(*known, strict=True))
                return min(steps * per_step, config.get("max_seconds") or math.inf) + rest
        return None


def _keys(choices: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    machine = [config["device"].split(":")[0], config["threads"]]
    batch = [config["batch_size"], config["accumulate"]]
    exact = [config[key] for key in ("model", "norm", "dataset", "instruments", "optimizer")]
    exact += [config[key] for key in ("evaluations", "curve_images")]
    wide = [choices["model"], choices["norm"], choices["dataset"], choices["instruments"]]
    keys = ([exact, batch, machine], [wide, batch, machine], [choices["model"], choices["dataset"], batch, machine])
    return [json.dumps(key, sort_keys=True) for key in keys]
