from __future__ import annotations

import pytest

from normbench.plots import figures
from normbench.plots.drawing import Figure


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, but not made into files, which takes most of the time."""

    def finish(name: str, title: str, caption: str, *about: object) -> Figure:
        return Figure(name, title, caption, b"<svg></svg>", b"png", b"pdf" * (about[-1] is True))

    monkeypatch.setattr(figures, "finish", finish)


@pytest.fixture
def few(unsaved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the figures of error against an option."""
    monkeypatch.setattr(figures, "FIGURES", figures.FIGURES[:2])
