"""The list of figures. A new one is a module with `draw(groups) -> list[Figure]` and one line here."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from normbench.analysis.groups import Groups
from normbench.plots import (
    along_option,
    batch_noise,
    batch_sizes,
    cost,
    depth,
    forest,
    landscape,
    learning_curves,
    lr_batch,
    lr_sensitivity,
    ribbons,
    running_statistics,
    shift,
    time_steps,
    train_test_shift,
)
from normbench.plots.drawing import Figure, look

# In the page's order: what comes out of training and what it costs, then why.
FIGURES: tuple[ModuleType, ...] = (
    learning_curves, batch_sizes, along_option, lr_sensitivity, lr_batch, forest, cost,
    ribbons, shift, train_test_shift, batch_noise, running_statistics, depth, landscape, time_steps,
)  # fmt: skip


def draw_all(groups: Groups, against: tuple[str, float] = ("none", 0.5), part: slice = slice(None)) -> list[Figure]:
    """Every figure; in place of one that fails, a note: a study of hours must not lose its tables to a picture.

    Args:
        against: the scheme that others are compared with, and the margin of equivalence in points.
    """
    figures = []
    with look(), _no_garbage_collection():
        for module in FIGURES[part]:
            try:
                figures += module.draw(groups, *against) if module is forest else module.draw(groups)
            except Exception as error:
                logging.getLogger(__name__).exception("%s could not be drawn", module.NAME)
                why = f"Could not be drawn: {type(error).__name__}: {error}"
                figures.append(Figure(module.NAME, module.TITLE, why))
    return figures


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A figure is made of a million objects, and looking for cycles among them takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
