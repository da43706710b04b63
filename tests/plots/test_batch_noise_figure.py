"""The figure of batch noise: which rows it takes, and what it says without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from normbench.analysis.groups import read
from normbench.plots import batch_noise
from normbench.plots.drawing import look
from normbench.runs import load

Add = Callable[..., Path]
HEAD = "step,samples,epoch,train_seconds,layer,tensor,lower,noise_mean\n"


def noisy(add: Add, batch_size: int, norm: str = "batch") -> None:
    path = add(norm=norm, batch_size=batch_size)
    rows = [(5, "a", "linear", "population", 9.0)]  # an earlier snapshot
    rows += [(10, "a", "linear", lower, batch_size**-0.5) for lower in ("population", "training")]
    rows += [(10, "a", "normalized", "population", 9.0), (10, "b", "linear", "training", 0.01)]
    text = "".join(f"{step},,,,{layer},{tensor},{lower},{value}\n" for step, layer, tensor, lower, value in rows)
    (path / "measured").mkdir(exist_ok=True)
    (path / "measured" / "batch_noise.csv").write_text(HEAD + text)


def test_it_takes_the_last_rows_of_the_norms_input(study: Path, add: Add) -> None:
    noisy(add, 4)
    (run,) = read(load(study)).members
    table = batch_noise._noise(run)
    assert table is not None
    assert sorted(table.noise_mean) == pytest.approx([0.01, 0.5, 0.5])
    assert set(table.batch_size) == {4}


def test_it_is_drawn_against_the_batch_size(study: Path, add: Add) -> None:
    noisy(add, 4)
    with look():
        (alone,) = batch_noise.draw(read(load(study)))
        noisy(add, 64)
        noisy(add, 64, "none")
        (figure,) = batch_noise.draw(read(load(study)))
    assert "two batch sizes" in alone.caption
    assert not alone.svg
    assert figure.svg
    assert "only the first layer follows the law" in figure.caption
