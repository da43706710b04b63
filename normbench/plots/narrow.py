"""A figure for a narrow screen: its panels one below the other, cut out of the picture that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.transforms import Bbox

POINTS = 72  # in an inch: the unit of the SVG
HALF = 3  # points: about half the height of a tick's label


@dataclass(frozen=True)
class Part:
    """A rectangle of the picture (left, top, width, height in its units), and where it goes."""

    box: tuple[float, float, float, float]
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Panel:
    """A panel with the ticks of its axes, which may stand at the first panel of its row or the last of its column."""

    width: float
    height: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Narrow:
    """What a narrow screen shows in place of the picture.

    Args:
        line: below the title: model, data, setting and how many seeds.
        axes: what the axes are, where the names stand beside the figure and not at its panels.
        legend: None where the figure has none.
    """

    line: str
    axes: str
    legend: Panel | None
    panels: tuple[Panel, ...]


def cut(canvas: Canvas, line: str) -> Narrow | None:
    """The panels of a figure that has been laid out; None where they stand below each other anyway."""
    found = [ax for ax in canvas.axes if ax.get_visible() and ax.get_subplotspec() is not None]
    if len({_place(ax)[1] for ax in found}) < 2:
        return None
    legend = None
    if canvas.legends:
        box = _box(canvas, _points(canvas, canvas.legends[0].get_window_extent()))
        legend = Panel(box[2], box[3], (Part(box),))
    names = {"across": canvas.get_supxlabel(), "up": canvas.get_supylabel()}
    axes = "; ".join(f"{way}: {name}" for way, name in names.items() if name)
    outside = {ax: _outside(canvas, ax) for ax in found}
    return Narrow(line, axes, legend, tuple(_panel(canvas, ax, outside) for ax in found))


def _panel(canvas: Canvas, ax: Axes, outside: Mapping[Axes, Bbox]) -> Panel:
    row, column = _place(ax)
    first = min((other for other in outside if _place(other)[0] == row), key=lambda other: _place(other)[1])
    last = max((other for other in outside if _place(other)[1] == column), key=lambda other: _place(other)[0])
    own = outside[ax]
    box = _box(canvas, own)
    left = below = 0.0
    parts = []
    if first is not ax and not ax.yaxis.get_tick_params().get("labelleft", True):
        inside = _inside(canvas, first)
        strip = _box(canvas, Bbox.from_extents(outside[first].x0, inside.y0 - HALF, inside.x0 - 2, inside.y1 + HALF))
        left, parts = strip[2], [Part(strip, 0.0, round(strip[1] - box[1], 1))]
    if last is not ax and not ax.xaxis.get_tick_params().get("labelbottom", True):
        inside = _inside(canvas, last)
        strip = _box(canvas, Bbox.from_extents(own.x0, outside[last].y0, own.x1, inside.y0 - 2))
        below, parts = strip[3], [*parts, Part(strip, left, box[3])]
    parts = [Part(box, left), *parts]
    return Panel(round(left + box[2], 1), round(box[3] + below, 1), tuple(parts))


def _place(ax: Axes) -> tuple[int, int]:
    """Row and column."""
    place = ax.get_subplotspec()
    assert place is not None
    return place.rowspan.start, place.colspan.start


def _outside(canvas: Canvas, ax: Axes) -> Bbox:
    """The panel with its title and what stands at its axes, in points from the lower left."""
    box = ax.get_tightbbox()
    assert box is not None
    return _points(canvas, box)


def _inside(canvas: Canvas, ax: Axes) -> Bbox:
    return _points(canvas, ax.get_window_extent())


def _points(canvas: Canvas, pixels: Bbox) -> Bbox:
    scale = POINTS / canvas.dpi
    return Bbox.from_extents(*(value * scale for value in pixels.extents))


def _box(canvas: Canvas, points: Bbox) -> tuple[float, float, float, float]:
    """From the upper left, as an SVG counts, with a margin of a point for what is drawn on the edge."""
    top = canvas.get_figheight() * POINTS - points.y1
    left, upper, width, height = points.x0 - 1, top - 1, points.width + 2, points.height + 2
    return round(left, 1), round(upper, 1), round(width, 1), round(height, 1)
