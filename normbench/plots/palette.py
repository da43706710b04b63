"""One colour, marker and line style per scheme, the same in every figure and table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from normbench.analysis.groups import KNOWN, order


@dataclass(frozen=True)
class Style:
    color: str
    marker: str
    line: Any  # a matplotlib line style: "-" or (offset, dashes)

    @property
    def drawn(self) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


# Okabe and Ito's colours, told apart under every common colour blindness (their yellow is too pale for lines on white:
# grey instead). Markers and dashes carry the same distinction in print without colour.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))


def _style(index: int) -> Style:
    lap, place = divmod(index, len(_COLORS))
    return Style(_COLORS[place], _MARKERS[(place + 3 * lap) % len(_MARKERS)], _LINES[(place + 2 * lap) % len(_LINES)])


def palette(schemes: Iterable[str]) -> dict[str, Style]:
    """A style for each scheme: a known one has its own always, the others take the first free ones in order of name."""
    names = order(schemes)
    taken = {name: KNOWN.index(name) for name in names if name in KNOWN}
    free = (index for index in itertools.count() if index not in taken.values())
    return {name: _style(taken[name] if name in taken else next(free)) for name in names}
