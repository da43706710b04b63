"""One colour and marker per scheme, the same in every figure and table; its variants differ in their lines."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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


OTHERS = "#BBBBBB"  # of the schemes that do not stand out where there are many
# Okabe and Ito's colours, distinct under every common colour blindness (brown in place of their yellow, which is too
# pale for lines on white), then Tol's "muted" ones, his indigo and wine lighter, then three far from all of these: all
# show on white and on a dark page. Markers carry the distinction in print without colour.
_COLORS: tuple[str, ...] = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B5A2B")
_COLORS += ("#6A5ACD", "#B03060", "#44AA99", "#999933", "#117733", "#DDCC77", "#AA4499", "#CC6677")
_COLORS += ("#FF2D55", "#2DB52D", "#C724E0")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))


def palette(schemes: Iterable[str], colored: Collection[str] | None = None) -> dict[str, Style]:
    """A style for each: a known scheme has its own always; others take the colours anew, in other lines.

    Args:
        colored: the schemes that are not grey; left out, all.
    """
    styles: dict[str, Style] = {}
    numbers = {name: number for number, name in enumerate(KNOWN)}
    variants: dict[str, int] = {}
    for name in order(schemes):
        scheme = name.partition(" ")[0]
        number = numbers.setdefault(scheme, len(numbers))
        variant = variants[scheme] = variants.get(scheme, -1) + 1
        lap = number // len(_MARKERS)
        styles[name] = Style(
            _COLORS[number % len(_COLORS)] if colored is None or name in colored else OTHERS,
            _MARKERS[(number + 3 * lap) % len(_MARKERS)],
            _LINES[(lap + variant) % len(_LINES)],
        )
    return styles
