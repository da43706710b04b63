"""What all figures share: their look, their files, panels in a grid, a legend with one entry per scheme."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image  # matplotlib brings it

from normbench.plots.palette import Style

_LOOK: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",  # looks the same where our font is missing
    "svg.hashsalt": "normbench",  # the same numbers make the same bytes
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


@dataclass(frozen=True)
class Figure:
    """A picture with the caption it must not be seen without; or, with `svg` empty, the sentence why there is none."""

    name: str  # of its files
    title: str
    caption: str
    svg: bytes = b""
    png: bytes = b""
    pdf: bytes = b""


@contextmanager
def look() -> Iterator[None]:
    """Draw as the report does, whatever the user's own matplotlibrc says, and leave no trace of it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def panels(rows: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Canvas, list[list[Axes]]]:
    """An empty figure of `rows` x `columns` axes, each of `width` x `height` inches. No pyplot: nothing stays open."""
    canvas = Canvas(figsize=(columns * width, rows * height))
    axes = canvas.subplots(rows, columns, squeeze=False, **shared)
    for ax in axes.flat:
        ax.locator_params(nbins=5)  # small panels: half the ticks say as much, in two thirds of the time
    return canvas, axes.tolist()


def grid(count: int, columns: int = 4) -> tuple[int, int]:
    """Rows and columns for `count` panels, without a nearly empty last row: 5 -> (2, 3), 9 -> (3, 3)."""
    rows = math.ceil(count / columns)
    return rows, math.ceil(count / rows)


def say(ax: Axes, words: str) -> None:
    """Words in the place of a panel that has no data."""
    ax.axis("off")
    ax.text(0.5, 0.5, words, transform=ax.transAxes, ha="center", va="center", fontsize=8)


def threads(ax: Axes, lines: Sequence[tuple[Any, Any]], color: str, width: float = 0.5, alpha: float = 0.45) -> None:
    """Thin lines (x, y), drawn as one with gaps: a study has thousands of them, and each costs time and bytes."""
    parts = [[np.append(np.asarray(part, dtype=float), np.nan) for part in line] for line in lines]
    if parts:
        x, y = (np.concatenate(axis) for axis in zip(*parts, strict=True))
        ax.plot(x, y, color=color, linewidth=width, alpha=alpha)


def legend(canvas: Canvas, styles: dict[str, Style], extra: Sequence[Line2D] = (), marks: bool = True) -> None:
    """One entry per scheme above the panels."""
    handles = [
        Line2D([], [], **(style.drawn if marks else style.drawn | {"marker": ""}), label=name)
        for name, style in styles.items()
    ]
    width = canvas.get_figwidth()
    longest = max((len(str(handle.get_label())) for handle in [*handles, *extra]), default=1)
    columns = max(1, min(len(handles) + len(extra), int(width / (0.6 + 0.075 * longest))))
    canvas.legend(handles=[*handles, *extra], loc="outside upper center", ncols=columns, handlelength=3)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers inside [low, high]: evenly spaced within a decade, otherwise 1-2-5 steps, at most eight."""
    if high < 8 * low:
        return [
            float(tick) for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high
        ]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        if len(inside := [tick for tick in ticks if low <= tick <= high]) <= 8:
            break
    return inside


def plain_ticks(axis: Axis) -> None:
    """Let a logarithmic axis read 0.1, 0.3, 1, as formulas are not set here."""
    low, high = axis.get_view_interval()
    if low <= 0:  # there is nothing on the axis
        return
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def symlog_axis(ax: Axes, axis: str, values: Iterable[float]) -> str:
    """Make the axis "x" or "y" logarithmic beyond 2, where an excursion would flatten all else; words for the caption.

    A unit without spread at the start, such as in a network of tiny weights, moves by hundreds of standard deviations.
    """
    known = np.asarray(list(values), dtype=float)
    known = known[np.isfinite(known)]
    if not len(known) or known.max() < max(20 * float(np.median(known)), 10):
        return ""
    getattr(ax, f"set_{axis}scale")("symlog", linthresh=2)
    ticks = [tick for tick in (0.0, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6) if tick <= 2 * known.max()]
    scaled: Axis = getattr(ax, f"{axis}axis")
    scaled.set_major_locator(FixedLocator(ticks))
    scaled.set_minor_locator(NullLocator())
    scaled.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return "Axes that reach far are linear up to 2, logarithmic beyond."


def finish(name: str, title: str, caption: str, canvas: Canvas, synthetic: bool) -> Figure:
    """Save `canvas` as SVG, PNG and PDF, without the time of day: the same runs give the same bytes."""
    if synthetic:
        canvas.text(0.995, 0.006, "synthetic data", ha="right", va="bottom", fontsize=8, color="#B00020")
    ConstrainedLayoutEngine().execute(canvas)  # once, not for each of the three: it takes longer than to save them
    svg, png, pdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
    canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    canvas.savefig(png, format="png", dpi=110, metadata={"Software": None})
    canvas.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return Figure(name, title, caption, _smaller_svg(svg.getvalue()), _smaller_png(png.getvalue()), pdf.getvalue())


def _smaller_svg(svg: bytes) -> bytes:
    """A third of the size for nothing that a screen shows: a tenth of a point is enough, no names of groups."""
    start = svg.index(b"<svg")  # drop the XML prologue too: the page holds the picture as it is
    svg = re.sub(rb"<!--.*?-->|<metadata>.*?</metadata>|(?<=<g) id=\"[^\"]*\"", b"", svg[start:], flags=re.DOTALL)
    svg = re.sub(rb"(?<![\d.])[1-9]\d*\.\d{2,}", lambda number: b"%.1f" % float(number[0]), svg)  # below 1: a factor
    svg = re.sub(rb'(?<= d=")[^"QC]*(?=")', lambda path: path[0].replace(b"L ", b""), svg)  # M 1 2 3 4: a line anyway
    svg = re.sub(rb"\s*\n\s*", b" ", svg).replace(b" stroke-dashoffset: 0;", b"")
    svg = re.sub(rb"(?<=\d)\.0(?=[ \"])", b"", re.sub(rb">\s+<", b"><", svg))
    # marks in a row that look the same: their style once
    return re.sub(rb'<use [^>]*?( style="[^"]*")/>(?:<use [^>]*?\1/>)+', _style_once, svg) + b"\n"


def _style_once(marks: re.Match[bytes]) -> bytes:
    return b"<g" + marks[1] + b">" + marks[0].replace(marks[1], b"") + b"</g>"


def _smaller_png(png: bytes) -> bytes:
    """The same picture with 256 colours: a third of the size."""
    reduced, image = io.BytesIO(), Image.open(io.BytesIO(png)).convert("RGB")
    # the only method that keeps the schemes' colours apart (off by 20 of 255 at most; by 80 with the default, measured)
    image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(reduced, "png", optimize=True)
    return reduced.getvalue()


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def omitted(shown: int, items: Iterable[object], what: str) -> str:
    """A sentence for a caption where there is more than fits."""
    total = len(list(items))
    return "" if total <= shown else f"Only {shown} of {total} {what} are drawn; the tables have them all."
