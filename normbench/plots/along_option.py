"""Test error against any option that was varied, such as the scale of the first weights or the share of dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes

from normbench.analysis.best_lr import choices, several
from normbench.analysis.groups import Group, Groups, Setting, label, show, without
from normbench.analysis.measured import rows
from normbench.plots.drawing import Figure, finish, grid, legend, omitted, panels, plain_ticks, plural
from normbench.plots.errors import draw_line, error_axis, errors, failure_marks, failure_words, limits
from normbench.plots.palette import Style, palette
from normbench.runs import Run
from normbench.runs.read import flat

NAME, TITLE = "along_option", "Test error against what was varied"
PANELS, OPTIONS = 8, 2
OWN_FIGURES = ("model", "dataset", "lr", "max_steps", "max_samples", "epochs")  # say how much, or of what
BELOW_LR = (
    "Below: effective lr at the start, lr / |w|^2 for SGD (README, instrument gradients), median over the layers whose "
    "weights a norm makes free of scale; dots: seeds. Others have none."
)
BELOW_SPEED = "Below: images per second of training alone, on the machine at hand; dots: seeds."
Lines = dict[str, dict[object, Group]]  # scheme -> value -> its group
Rates = dict[str, dict[object, list[float]]]  # the same, with the effective lr of each run


def draw(groups: Groups) -> list[Figure]:
    """A figure per option: a panel for each of the other settings, and below it what lr the weights really had."""
    drawn_apart = OWN_FIGURES if several(choices(groups)) else (*OWN_FIGURES, "batch_size")  # has a figure of its own
    options = [key for key in groups.varying if key not in drawn_apart and not key.endswith(".name")]
    if not options:
        return [Figure(NAME, TITLE, "Not drawn: besides scheme, lr and batch size, nothing was varied.")]
    drawn = [_draw(groups, option, NAME if i == 0 else f"{NAME}_{i + 1}") for i, option in enumerate(options[:OPTIONS])]
    return [figure for figure in drawn if figure is not None]


def lines_along(groups: Groups, option: str) -> dict[Setting, Lines]:
    """The other settings but the lr -> scheme -> value of the option -> its group at its own best lr there."""
    found: dict[Setting, Lines] = {}
    for setting, by_scheme in choices(groups).items():
        rest = without(setting, option)
        for scheme, choice in by_scheme.items():
            found.setdefault(rest, {}).setdefault(scheme, {})[dict(setting).get(option)] = choice.shown
    return {rest: lines for rest, lines in found.items() if len({v for line in lines.values() for v in line}) > 1}


def _draw(groups: Groups, option: str, name: str) -> Figure | None:
    lines, styles = lines_along(groups, option), palette(groups.schemes)
    shown = list(lines)[:PANELS]
    if not shown:
        return None
    lines_of_panels, columns = grid(len(shown))
    speed = option == "batch_size"
    rates = {rest: _rates(lines[rest], images_per_second if speed else effective_lr) for rest in shown}
    each = 1 + any(rates.values())  # rows of axes for a row of panels
    wide = 6.0 if columns == 1 else max(2.9, 11 / columns)
    canvas, axes = panels(each * lines_of_panels, columns, wide, 3.2 if each == 1 else 2.6, sharex="col", sharey="row")
    flat = [ax for row in axes[::each] for ax in row]
    found = [e for rest in shown for line in lines[rest].values() for group in line.values() for e in errors(group)]
    bounds, failures = limits(found), set[str]()
    for ax, rest in zip(flat, shown, strict=False):
        failures |= _panel(ax, lines[rest], styles, bounds)
        ax.set_title(label(rest, ""))
    for row in axes[::each]:
        error_axis(row[0], bounds)
        row[0].set_ylabel("test error (%)")
    below = [ax for row in axes[1::each] for ax in row] if each > 1 else []
    for ax, rest in zip(below, shown, strict=False):
        _draw_rates(ax, rates[rest], _values(lines[rest]), styles)
        if ax in [row[0] for row in axes]:
            ax.set_ylabel("images per second" if speed else "effective lr")
    for ax in [*flat[len(shown) :], *below[len(shown) :]]:
        ax.set_visible(False)
    words = option.rpartition(".")[2].replace("_", " ")
    canvas.supxlabel(option if "." in option else words, fontsize=9)
    legend(canvas, {scheme: styles[scheme] for scheme in styles if any(scheme in lines[rest] for rest in shown)},
           failure_marks(failures))  # fmt: skip
    own = "each scheme at its own best lr (chosen on validation data); " if several(choices(groups)) else ""
    parts = [
        f"Error on the test set (percent, logarithmic) at the end of training, from {plural(len(found), 'run')};",
        f"{own}lower is better. The values of {option} are evenly spaced, whatever their size. Small dots: seeds.",
        "Lines join their means; bars are the 95% Student t interval of the mean. Schemes are moved apart sideways.",
        failure_words(failures),
        (BELOW_SPEED if speed else BELOW_LR) * (each > 1),
        omitted(PANELS, lines, "settings"),
    ]
    title = f"{TITLE}: {words}"
    return finish(name, title, " ".join(filter(None, parts)), canvas, groups.synthetic)


def _panel(ax: Axes, lines: Lines, styles: Mapping[str, Style], bounds: tuple[float, float]) -> set[str]:
    values = _values(lines)
    failures = set[str]()
    for i, (scheme, line) in enumerate(lines.items()):
        aside = 0.05 * (i - (len(lines) - 1) / 2)
        places = {values.index(value) + 1 + aside: group for value, group in line.items()}
        failures |= draw_line(ax, dict(sorted(places.items())), styles[scheme], 1.0, bounds)
    ax.set_xticks(range(1, len(values) + 1), [show(value) for value in values])
    ax.set_xlim(0.5, len(values) + 0.5)
    return failures


def _values(lines: Lines) -> list[object]:
    return sorted({value for line in lines.values() for value in line}, key=_order)


def _rates(lines: Lines, rate: Callable[[Run], float | None]) -> Rates:
    """Of the runs that have one."""
    found: Rates = {}
    for scheme, line in lines.items():
        for value, group in line.items():
            if known := [one for run in group.having("complete") if (one := rate(run)) is not None]:
                found.setdefault(scheme, {})[value] = known
    return found


def effective_lr(run: Run) -> float | None:
    """Median over layers at the first snapshot; None where no weight is free of scale, or none was measured."""
    table = rows(run, "gradients", "step", "effective_lr")
    first = table[table.step == table.step.min()].effective_lr.dropna()
    return float(first.median()) if len(first) else None


def images_per_second(run: Run) -> float | None:
    seconds = flat(run.summary).get("seconds.training")
    return run.summary["samples"] / seconds if seconds else None


def _draw_rates(ax: Axes, rates: Rates, values: list[object], styles: Mapping[str, Style]) -> None:
    for i, (scheme, line) in enumerate(rates.items()):
        aside = 1 + 0.05 * (i - (len(rates) - 1) / 2)
        known = {values.index(value) + aside: line[value] for value in values if value in line}
        dots = [(at, rate) for at, found in known.items() for rate in found]
        ax.plot([x for x, _ in dots], [y for _, y in dots], ".", color=styles[scheme].color, markersize=3.5, alpha=0.6)
        ax.plot(list(known), [sum(found) / len(found) for found in known.values()], **styles[scheme].drawn)
    if rates:
        ax.set_yscale("log")
        plain_ticks(ax.yaxis)


def _order(value: object) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
