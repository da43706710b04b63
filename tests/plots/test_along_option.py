"""Test error along an option: each group at its own best learning rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normbench.analysis.groups import read
from normbench.plots import along_option
from normbench.plots.drawing import look
from normbench.runs import load

Add = Callable[..., Path]


def test_the_lines_along_an_option_have_each_cell_at_its_own_best_lr(study: Path, add: Add) -> None:
    for dropout in (0.0, 0.5):
        for lr, accuracy in ((0.1, 0.9), (1.0, 0.8 + dropout / 4)):
            for norm in ("none", "batch"):
                add(norm=norm, lr=lr, accuracy=accuracy, options={"model.dropout": dropout})
    found = read(load(study))
    [(rest, lines)] = along_option.lines_along(found, "model.dropout").items()
    assert rest == ()
    best = {value: group.values["lr"] for value, group in lines["batch"].items()}
    assert best == {0.0: 0.1, 0.5: 1.0}
    with look():
        [figure] = along_option.draw(found)
    assert figure.svg
    assert "each scheme at its own best lr" in figure.caption
    assert "from 4 runs" in figure.caption
