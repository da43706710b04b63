"""What all figures share: their look, their files, panels in a grid, a legend with one entry per scheme."""

from __future__ import annotations

import io
import math
import re
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image  # matplotlib brings it

from normbench.analysis.groups import order
from normbench.plots.narrow import Narrow, cut
from normbench.plots.palette import OTHERS, Style

if TYPE_CHECKING:
    import pandas as pd

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
    "grid.color": "#808080",  # on a light and on a dark page
    "grid.alpha": 0.2,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "none",  # text that can be searched, selected, read aloud
    "svg.hashsalt": "normbench",  # the same numbers make the same bytes
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}
SOFT = "#757575"  # of what is said in passing: legible on white and on black
# Texts of an SVG have the page's ink, and matplotlib's font or one as wide.
TEXTS = """fill="currentColor" font-family="'DejaVu Sans', Verdana, sans-serif\""""
SMALLEST = 4.6  # inches: the width that a title needs
_LOCK = threading.RLock()  # matplotlib's settings are the whole process's


class Canvas(MatplotlibFigure):
    """A figure of matplotlib that a notebook shows, also where pyplot was never imported.

    Args:
        caption: that it must not be seen without.
    """

    caption = ""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=110)
        return png.getvalue()


@dataclass(frozen=True)
class Figure:
    """A picture with the caption it must not be seen without; or, with `svg` empty, the sentence why there is none."""

    name: str  # of its files
    title: str
    caption: str
    svg: bytes = b""
    png: bytes = b""
    pdf: bytes = b""
    narrow: Narrow | None = None  # how a phone shows the SVG; None: as it is


@contextmanager
def look() -> Iterator[None]:
    """Draw as the report does, whatever the user's own settings of matplotlib are, and leave no trace of it."""
    with _LOCK, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        yield


def panels(rows: int, columns: int, width: float, height: float, **shared: Any) -> tuple[Canvas, list[list[Axes]]]:
    """An empty figure of `rows` x `columns` axes, each of `width` x `height` inches. No pyplot: nothing stays open."""
    canvas = Canvas(figsize=(max(SMALLEST, columns * width), rows * height))
    axes = canvas.subplots(rows, columns, squeeze=False, **shared)
    for ax in axes.flat:
        ax.locator_params(nbins=5)  # small panels: half the ticks say as much, in two thirds of the time
    return canvas, axes.tolist()


def grid(count: int, columns: int = 4) -> tuple[int, int]:
    """Rows and columns for `count` panels, without a nearly empty last row: 5 -> (2, 3), 9 -> (3, 3)."""
    rows = math.ceil(count / columns)
    return rows, math.ceil(count / rows)


def panel_grid(count: int, width: float, height: float, **shared: Any) -> tuple[Canvas, list[Axes]]:
    """`panels` in a `grid`: `count` axes, with the names of places also above an empty one."""
    rows, columns = grid(count)
    canvas, axes = panels(rows, columns, width, height, **shared)
    flat = [ax for row in axes for ax in row]
    for i, ax in enumerate(flat):
        ax.set_visible(i < count)
        ax.tick_params(labelbottom=i + columns >= count)
    return canvas, flat[:count]


def segments(ax: Axes, lines: Sequence[tuple[Any, Any]], color: str, width: float = 0.5, alpha: float = 0.45) -> None:
    """Thin lines (x, y), drawn as one with gaps: a study has thousands of them, and each costs time and bytes."""
    parts = [[np.append(np.asarray(part, dtype=float), np.nan) for part in line] for line in lines]
    if parts:
        x, y = (np.concatenate(axis) for axis in zip(*parts, strict=True))
        ax.plot(x, y, color=color, linewidth=width, alpha=alpha)


def legend(canvas: Canvas, styles: dict[str, Style], extra: Sequence[Line2D] = ()) -> None:
    """One entry per scheme above the panels, one for all grey schemes, and `extra`: the figure grows by their rows."""
    handles = [Line2D([], [], **style.drawn, label=name) for name, style in styles.items() if style.color != OTHERS]
    if others := len(styles) - len(handles):
        handles.append(Line2D([], [], color=OTHERS, label=f"{others} other{'s' * (others > 1)}"))
    handles += extra
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(1, min(len(handles), int(canvas.get_figwidth() / (0.6 + 0.075 * longest))))
    canvas.set_figheight(canvas.get_figheight() + 0.19 * math.ceil(len(handles) / columns))
    canvas.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=3)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers inside [low, high]: evenly spaced within a decade, otherwise 1-2-5 steps, at most eight."""
    if high < 8 * low:
        return round_ticks(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        if len(inside := [tick for tick in ticks if low <= tick <= high]) <= 8:
            break
    return inside[:: math.ceil(len(inside) / 8)]


def round_ticks(low: float, high: float) -> list[float]:
    """Up to six evenly spaced round numbers inside [low, high]."""
    return [float(tick) for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def ticks(axis: Axis, places: Sequence[float]) -> None:
    """Ticks at these places alone, that read 0.1, 0.3, 1: formulas are not set here."""
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def plain_ticks(axis: Axis) -> None:
    """`ticks` for a logarithmic axis."""
    low, high = axis.get_view_interval()
    if low > 0:  # otherwise there is nothing on the axis
        ticks(axis, log_ticks(low, high))


def symlog_axis(ax: Axes, axis: str, values: Iterable[float], linear: float = 2.0) -> bool:
    """Make the axis "x" or "y" logarithmic beyond `linear` where an excursion would flatten all else; was it made so?

    A unit without spread at the start, such as in a network of tiny weights, moves by hundreds of standard deviations.
    """
    known = np.abs(np.asarray(list(values), dtype=float))
    known = known[np.isfinite(known)]
    if not len(known) or known.max() < max(20 * float(np.median(known)), 5 * linear):
        return False
    getattr(ax, f"set_{axis}scale")("symlog", linthresh=linear)
    positive = [tick for tick in (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6) if tick <= 2 * known.max()]
    ticks(getattr(ax, f"{axis}axis"), [*(-tick for tick in positive[::-1]), 0.0, *positive])
    return True


def finish(
    name: str, title: str, caption: str, canvas: Canvas, synthetic: bool, line: str = "", pdf: bool = False
) -> Figure:
    """Save `canvas` as SVG, PNG and, if asked for, PDF, without the time of day: the same runs give the same bytes.

    Args:
        line: below the title, in the picture: model, data, setting and how many seeds.
    """
    complete(canvas, title, synthetic, line)
    svg, png, printed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    canvas.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    canvas.savefig(png, format="png", dpi=110, metadata={"Software": None})
    if pdf:
        canvas.savefig(printed, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    files = _smaller_svg(svg.getvalue()), _smaller_png(png.getvalue()), printed.getvalue()
    return Figure(name, title, caption, *files, narrow=cut(canvas, line))


def complete(canvas: Canvas, title: str, synthetic: bool, line: str) -> None:
    """Make room above the panels for the title and the line below it, lay out the rest, and mark synthetic data."""
    width, height = canvas.get_size_inches()
    titles, lines = (textwrap.wrap(words, int(width * signs)) for words, signs in ((title, 11.5), (line, 14.5)))
    head = 0.1 + 0.17 * len(titles) + 0.15 * len(lines)
    canvas.set_size_inches(width, height + head)
    top = height / (height + head)
    left, above = 0.06 / width, 1 - 0.05 / (height + head)
    canvas.text(left, above, "\n".join(titles), fontsize=10, fontweight="bold", va="top")
    below = above - 0.17 * len(titles) / (height + head)
    canvas.text(left, below, "\n".join(lines), fontsize=8, color=SOFT, va="top")
    # once, not for each of the three files: it takes longer than to save them
    ConstrainedLayoutEngine(rect=(0, 0, 1, top)).execute(canvas)
    for entries in canvas.legends:
        entries.set_bbox_to_anchor((0, 0, 1, top), canvas.transFigure)
    if synthetic:
        canvas.text(0.995, 0.006, "synthetic data", ha="right", va="bottom", fontsize=8, color="#D0304A")


def _smaller_svg(svg: bytes) -> bytes:
    """Half the size for nothing that a screen shows, a tenth of a point is enough; and black is the page's ink.

    What stands between the tags are texts, of users too, escaped by matplotlib: they stay as they are.
    """
    text = svg[svg.index(b"<svg") :].decode()  # drop the XML prologue too: the page holds the picture as it is
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    parts = re.split(r"(<[^>]*>)", text)
    parts[1::2] = map(_smaller_tag, parts[1::2])
    parts[0::2] = [part if part.strip() else "" for part in parts[0::2]]
    return "".join(parts).replace("<svg ", f"<svg {TEXTS} ", 1).encode() + b"\n"


def _smaller_tag(tag: str) -> str:
    tag = re.sub(r"\s*\n\s*", " ", tag).replace(" stroke-dashoffset: 0;", "")
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"#0{6}\b", "currentColor", tag)
    tag = re.sub(r' ?font-family: [^;"]*;?| transform="rotate\(-?0 [^"]*"', "", tag)
    tag = re.sub(r"(?<![\d.])[1-9]\d*\.\d{2,}", lambda number: f"{float(number[0]):.1f}", tag)  # below 1: a factor
    tag = re.sub(r'(?<= d=")[^"QC]*(?=")', lambda path: path[0].replace("L ", ""), tag)  # M 1 2 3 4: a line anyway
    return re.sub(r'(?<=\d)\.0(?=[ "])', "", tag)


def _smaller_png(png: bytes) -> bytes:
    """The same picture with 256 colours: a third of the size."""
    reduced, image = io.BytesIO(), Image.open(io.BytesIO(png)).convert("RGB")
    # the only method that keeps the schemes' colours apart (off by 20 of 255 at most; by 80 with the default, measured)
    image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(reduced, "png", optimize=True)
    return reduced.getvalue()


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def omitted(shown: int, total: int, what: str) -> str:
    """A sentence for a caption where there is more than fits."""
    return "" if total <= shown else f"Only {shown} of {total} {what} are drawn; the tables have them all."


def means(words: str, data: pd.DataFrame, unit: str = "") -> str:
    """What one sees, for a caption: "Words: none 1.2, batch 0.1 s.d."; nothing without data."""
    found = data.groupby("scheme")["y"].mean().dropna()
    numbers = ", ".join(f"{scheme} {found[scheme]:.2g}" for scheme in order(found.index))
    return f"{words}: {numbers}{unit.removesuffix('.')}." if numbers else ""
