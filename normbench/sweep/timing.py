"""How long a run will take, from runs that are over."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from normbench.runs import Run

MOST = 200  # earlier runs of other studies that are read: the newest


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

    def learn_from(self, results: Path, finished: Sequence[Path]) -> None:
        """Take in the runs in `finished`, and of all others below `results` the newest that are over."""
        known = set(finished)
        others = [path for path in results.glob("*/*/summary.json") if path.parent not in known]
        newest = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST]
        for folder in [*finished, *(path.parent for path in newest)]:
            run = Run(folder)
            try:
                self.learn(run.choices, run.config, run.summary)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
                continue  # a foreign or half-written folder tells nothing

    def seconds(self, choices: Mapping[str, str], config: Mapping[str, Any], steps: int) -> float | None:
        """Of a run of `steps` updates; None if no run like it is known."""
        for key in _keys(choices, config):
            if known := self.known.get(key):
                per_step, rest = (statistics.median(values) for values in zip(*known, strict=True))
                return steps * per_step + rest
        return None


def _keys(choices: Mapping[str, str], config: Mapping[str, Any]) -> list[str]:
    machine = [config["device"].split(":")[0], config["threads"]]
    batch = [config["batch_size"], config["accumulate"]]
    exact = [config[key] for key in ("model", "norm", "dataset", "instruments", "evaluations", "optimizer")]
    wide = [choices["model"], choices["norm"], choices["dataset"], choices["instruments"]]
    keys = ([exact, batch, machine], [wide, batch, machine], [choices["model"], choices["dataset"], batch, machine])
    return [json.dumps(key, sort_keys=True) for key in keys]
