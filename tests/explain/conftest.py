"""A small trained network of each kind, and what `normbench explain --json` says of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import normbench
from normbench.cli import main
from normbench.experiment import build, load_dataset
from normbench.runs import Run

SMALL = {
    "mlp": ["model.hidden=[12,10]"],
    "cnn": ["model=cnn", "model.channels=[3,4]"],
    "rnn": ["model=rnn", "model.units=6"],
}
TINY = ["dataset=synthetic", "dataset.examples=700", "dataset.validation=100", "device=cpu", "batch_size=4"]


@dataclass
class Explained:
    """A run, its raw numbers in double precision, and the explanation; it remembers which steps were compared."""

    folder: Path
    state: dict[str, np.ndarray]
    images: np.ndarray  # [256, C, H, W], of which the first 4 are the mini-batch
    labels: np.ndarray
    said: dict[str, Any]
    compared: set[str] = field(default_factory=set)

    def rows(self, key: str) -> list[list[Any]]:
        [step] = [step for step in self.said["steps"] if step["key"] == key]
        return step["rows"]

    def is_(self, key: str, *columns: Any, tolerance: float = 1e-5) -> None:
        """The numbers of a step's table, column by column (those of words left out), are these."""
        self.compared.add(key)
        rows = self.rows(key)
        assert len(rows[0]) == len(columns) + 1, f"{key}: every column is compared"
        for i, expected in enumerate(columns, start=1):
            if expected is not None:
                numbers = [float(row[i]) for row in rows]
                np.testing.assert_allclose(numbers, expected, rtol=1e-4, atol=tolerance, err_msg=f"{key}, column {i}")

    def all_compared(self) -> None:
        assert self.compared == {step["key"] for step in self.said["steps"]}


@cache
def _run(norm: str, model: str, where: Path) -> Path:
    words = [f"norm={norm}", *SMALL[model], *TINY, "max_steps=20", "evaluations=1", "instruments=none"]
    return normbench.run([*words, f"results_dir={where}"]).folder


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Explained]]:
    """`explained("batch", "mlp", "--unit", "3")`."""
    where = tmp_path_factory.mktemp("runs")

    def explain(norm: str, model: str, *words: str) -> Explained:
        folder = _run(norm, model, where)
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert main(["explain", "--run", str(folder), "--json", *words]) == 0
        record = Run(folder).config
        images, labels = load_dataset(record, build(record)).train.batch(torch.arange(256))
        state = {name: value.double().numpy() for name, value in torch.load(folder / "model.pt").items()}
        return Explained(folder, state, images.double().numpy(), labels.numpy(), json.loads(printed.getvalue()))

    yield explain
    _run.cache_clear()
