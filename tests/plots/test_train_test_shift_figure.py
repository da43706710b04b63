"""The figure of both shifts: which rows are which, on which axis they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure as Canvas

from normbench.analysis.groups import read
from normbench.plots import train_test_shift
from normbench.plots.drawing import Figure, look
from normbench.runs import load
from tests.study_files import measure_everything

Add = Callable[..., Path]


def drawn(study: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """The canvas and the caption."""
    kept: list[tuple[Any, str]] = []

    def finish(name: str, title: str, caption: str, canvas: Canvas, synthetic: bool) -> Figure:
        kept.append((canvas, caption))
        return Figure(name, title, caption, b"x")

    monkeypatch.setattr(train_test_shift, "finish", finish)
    with look():
        train_test_shift.draw(read(load(study)))
    return kept[0]


def test_both_shifts_are_on_one_axis_and_differ_in_look(study: Path, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        summary = {"measured": {"shift": {"second": 0.5 + seed}}}
        measure_everything(add(norm="batch", seed=seed, summary=summary), scale=1 + 2 * seed)
    canvas, caption = drawn(study, monkeypatch)
    above, below = canvas.axes
    noise, blur, control, internal = (line.get_ydata().tolist() for line in above.lines)
    assert noise == blur == pytest.approx([2 * 5.1, 2 * 2.6]), "severity 5, statistics from training, mean over seeds"
    assert control == pytest.approx([0.2, 0.2])
    assert internal[1] == pytest.approx(1.0)
    looks = {(line.get_linestyle(), line.get_color()) for line in above.lines}
    assert len(looks) == 4
    assert ("-", "black") in looks
    assert sum(linestyle == "-" for linestyle, _ in looks) == 1
    assert "internal: 0" in [text.get_text() for text in above.texts]
    estimated, own = below.lines[0], below.lines[-1]
    assert own.get_xdata().tolist() == [0, 3, 5]
    assert own.get_ydata() == pytest.approx([90, 60, 40])
    assert estimated.get_ydata() == pytest.approx([96.4, 66.4, 46.4]), "with the most images"
    assert "severity 5" in caption
    assert "on 64 other images" in caption
    assert "batch 2." in caption


def test_without_the_shift_over_training_it_names_the_instrument(
    study: Path, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_everything(add(norm="none", summary={"measured": {}}))
    canvas, caption = drawn(study, monkeypatch)
    assert len(canvas.axes[0].lines) == 3
    assert "the instrument shift supplies it" in caption
