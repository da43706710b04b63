"""Test error against any option that was varied, such as the scale of the first weights or the share of dropout."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from normbench.report.cells import Cell, Cells, Setting, label, show
from normbench.report.columns import without
from normbench.report.drawing import Figure, finish, grid, legend, omitted, panels, plural
from normbench.report.errors import draw_line, error_axis, errors, gone_marks, gone_words, limits
from normbench.report.learning_rates import choices, several
from normbench.report.palette import Style, palette

NAME, TITLE = "along_option", "Test error against what was varied"
PANELS, OPTIONS = 8, 2
ELSEWHERE = ("model", "dataset", "lr", "batch_size", "max_steps", "max_samples", "epochs")  # other figures have these
Lines = dict[str, dict[object, Cell]]  # scheme -> value -> its cell


def draw(cells: Cells) -> list[Figure]:
    """A figure per option: a panel for each of the other settings."""
    options = [key for key in cells.varying if key not in ELSEWHERE and not key.endswith(".name")]
    if not options:
        return [Figure(NAME, TITLE, "Not drawn: besides scheme, lr and batch size, nothing was varied.")]
    drawn = [_draw(cells, option, NAME if i == 0 else f"{NAME}_{i + 1}") for i, option in enumerate(options[:OPTIONS])]
    return [figure for figure in drawn if figure is not None]


def lines_along(cells: Cells, option: str) -> dict[Setting, Lines]:
    """The other settings but the lr -> scheme -> value of the option -> its cell at its own best lr there."""
    found: dict[Setting, Lines] = {}
    for setting, by_scheme in choices(cells).items():
        rest = without(setting, option)
        for scheme, choice in by_scheme.items():
            found.setdefault(rest, {}).setdefault(scheme, {})[dict(setting).get(option)] = choice.shown
    return {rest: lines for rest, lines in found.items() if len({v for line in lines.values() for v in line}) > 1}


def _draw(cells: Cells, option: str, name: str) -> Figure | None:
    lines, styles = lines_along(cells, option), palette(cells.schemes)
    shown = list(lines)[:PANELS]
    if not shown:
        return None
    rows, columns = grid(len(shown))
    canvas, axes = panels(rows, columns, 6.0 if columns == 1 else max(2.9, 11 / columns), 3.2, sharey=True)
    flat = [ax for row in axes for ax in row]
    found = [e for rest in shown for line in lines[rest].values() for cell in line.values() for e in errors(cell)]
    bounds, gone = limits(found), set[str]()
    for ax, rest in zip(flat, shown, strict=False):
        gone |= _panel(ax, lines[rest], styles, bounds)
        ax.set_title(label(rest, ""))
    for ax in flat[len(shown) :]:
        ax.set_visible(False)
    error_axis(flat[0], bounds)
    words = option.rpartition(".")[2].replace("_", " ")
    canvas.supxlabel(option if "." in option else words, fontsize=9)
    canvas.supylabel("test error (%)", fontsize=9)
    legend(canvas, {scheme: styles[scheme] for scheme in styles if any(scheme in lines[rest] for rest in shown)},
           gone_marks(gone))  # fmt: skip
    own = "each scheme at its own best lr (chosen on validation data); " if several(choices(cells)) else ""
    parts = [
        f"Error on the test set (percent, logarithmic) at the end of training, from {plural(len(found), 'run')};",
        f"{own}lower is better. The values of {option} are evenly spaced, whatever their size. Small dots: seeds.",
        "Lines join their means; bars are the 95% Student t interval of the mean. Schemes are moved apart sideways.",
        gone_words(gone),
        omitted(PANELS, lines, "settings"),
    ]
    title = f"{TITLE}: {words}"
    return finish(name, title, " ".join(filter(None, parts)), canvas, cells.synthetic)


def _panel(ax: Axes, lines: Lines, styles: Mapping[str, Style], bounds: tuple[float, float]) -> set[str]:
    values = sorted({value for line in lines.values() for value in line}, key=_order)
    gone = set[str]()
    for i, (scheme, line) in enumerate(lines.items()):
        aside = 0.05 * (i - (len(lines) - 1) / 2)
        places = {values.index(value) + 1 + aside: cell for value, cell in line.items()}
        gone |= draw_line(ax, dict(sorted(places.items())), styles[scheme], 1.0, bounds)
    ax.set_xticks(range(1, len(values) + 1), [show(value) for value in values])
    ax.set_xlim(0.5, len(values) + 0.5)
    return gone


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
