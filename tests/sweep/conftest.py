"""Runs of a few steps on made-up images, in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from normbench.config.run_config import RunConfig


@pytest.fixture
def run_config(cell_with: Callable[..., Callable[..., RunConfig]]) -> Callable[..., RunConfig]:
    """`run_config("max_steps=5", jobs=1)`: that run; words are composed, keywords replace values."""
    small = ["dataset.size=8", "dataset.examples=600", "dataset.validation=100", "batch_size=8", "model.hidden=[8]"]
    return cell_with(*small, "instruments=none")
