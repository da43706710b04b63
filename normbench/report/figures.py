"""The list of figures. A new one is a module with `draw(cells) -> list[Figure]` and one line here."""

from __future__ import annotations

import logging

from normbench.report import batch_noise, batch_sizes, learning_curves, ribbons, shift, unit_bands
from normbench.report.cells import Cells
from normbench.report.drawing import Figure, look

FIGURES = (learning_curves, batch_sizes, ribbons, shift, unit_bands, batch_noise)  # in the page's order


def draw_all(cells: Cells, part: slice = slice(None)) -> list[Figure]:
    """Every figure; in place of one that fails, a note: a study of hours must not lose its tables to a picture."""
    figures = []
    with look():
        for module in FIGURES[part]:
            try:
                figures += module.draw(cells)
            except Exception as error:
                logging.getLogger(__name__).exception("%s could not be drawn", module.NAME)
                why = f"Could not be drawn: {type(error).__name__}: {error}"
                figures.append(Figure(module.NAME, module.TITLE, why))
    return figures
