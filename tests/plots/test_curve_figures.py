"""Learning curves: what is averaged over what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normbench.analysis.groups import read
from normbench.plots import learning_curves
from normbench.plots.drawing import look, panels, symlog_axis
from normbench.plots.palette import palette
from normbench.runs import load

Add = Callable[..., Path]


@pytest.mark.parametrize(("x", "expected"), [("samples", [0, 1000, 2000]), ("train_seconds", [0, 1, 2])])
def test_curves_against_images_and_seconds(study: Path, add: Add, x: str, expected: list[float]) -> None:
    for seed, last in ((0, 0.9), (1, 0.7)):
        add(seed=seed, curve=(0.1, 0.5, last))
    groups = read(load(study))
    curves = {run: learning_curves._curve(run) for run in groups.members}
    with look():
        _, axes = panels(1, 1, 3, 3)
        learning_curves._draw_group(axes[0][0], groups.settings[()]["batch"], curves, palette(["batch"])["batch"], x)
    seeds, mean = axes[0][0].lines
    np.testing.assert_allclose(mean.get_xydata(), np.transpose([expected, [90, 50, 20]]))
    np.testing.assert_allclose(seeds.get_ydata(), [90, 50, 10, np.nan, 90, 50, 30, np.nan])


def test_the_settings_that_learn_most_are_kept(study: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curves, "PANELS", 1)
    titles: list[str] = []
    monkeypatch.setattr(learning_curves, "label", lambda setting, otherwise: titles.append(str(setting)) or "")
    for lr, accuracy in ((0.1, 0.2), (0.2, 0.9), (0.3, 0.5)):
        add(lr=lr, accuracy=accuracy)
    with look():
        (figure,) = learning_curves.draw(read(load(study)))
    assert titles == ["(('lr', 0.2),)"]
    assert "Only 1 of 3 settings are drawn" in figure.caption


@pytest.mark.parametrize(
    ("values", "bent"), [([1, 2, 3], False), ([1, 1, 400], True), ([], False), ([np.nan, 1], False)]
)
def test_one_excursion_does_not_flatten_the_rest(values: list[float], bent: bool) -> None:
    with look():
        _, axes = panels(1, 1, 2, 2)
        assert bool(symlog_axis(axes[0][0], "y", values)) is bent
    assert axes[0][0].get_yscale() == ("symlog" if bent else "linear")
