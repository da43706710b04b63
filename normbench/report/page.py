"""One self-contained HTML page: the answer, the numbers, the pictures, what went wrong, how to repeat it."""

from __future__ import annotations

from markupsafe import Markup

from normbench.analysis.groups import Groups, show
from normbench.analysis.notes import constants
from normbench.analysis.reproduce import commands
from normbench.plots.drawing import TEXTS, Figure, plural
from normbench.plots.palette import palette
from normbench.plots.view import View
from normbench.report import claims, html, page_tables, sources
from normbench.report.content import Content
from normbench.report.explorer import explorer

HEAVY = 400_000  # bytes of SVG above which the page shows the PNG: it has to stay below 15 MB, and scroll on a phone
FOLDED = 60  # runs, above which their table is not printed
OPEN = 6  # figures that are not folded away


def render(content: Content) -> str:
    """The page. All of it comes from the runs' files, without the time of building: the same runs, the same bytes."""
    board, groups = content.board, content.groups
    return html.render(
        "page.html",
        {"picture": picture, **claims.FILTERS},
        ["page.js", *["explorer.js"] * bool(content.explorer)],
        content=content,
        study=groups.folder.resolve().name,
        counts=sources.counts(groups),
        synthetic=_synthetic(groups),
        pictures=pictures(content),
        heavy=HEAVY,
        missing=[figure for figure in content.figures if not figure.svg],
        open_figures=OPEN,
        answer=content.sentences,
        warned=_warned(content),
        shared=constants(groups),
        constant={key: show(value) for key, value in groups.constant.items()},
        options=sources.scheme_options(groups),
        notes=[note for note in board.notes if not note.startswith(("Not read: ", "SYNTHETIC"))],  # shown apart
        colors=_colors(groups),
        filters=page_tables.filters(groups),
        headings=[c.heading for c in board.short if c.key != "remarks" or any(row["remarks"] for row in board.rows)],
        groups=page_tables.by_setting(board),
        glance=page_tables.glance(groups),
        troubles=page_tables.troubles(groups),
        tracebacks=sources.tracebacks(groups),
        facts=sources.facts(groups),
        commands=commands(groups),
        folded=FOLDED,
    )


def render_explorer(view: View) -> str | None:
    """The layer explorer as a page of its own; None where no run has measured its layers."""
    if (found := explorer(view)) is None:
        return None
    return html.render(
        "layers.html",
        {"picture": picture},
        ["explorer.js"],
        content={"explorer": found, "figures": []},
        study=view.groups.folder.resolve().name,
        synthetic=_synthetic(view.groups),
        colors=_colors(view.groups),
    )


def pictures(content: Content) -> list[Figure]:
    """Those that were drawn: first that of the claim which answers the study's question."""
    lead = content.main.claim.figure if content.main else ""
    drawn = [f for f in content.figures if f.svg and not (content.explorer and f.name == "ribbons" != lead)]
    return sorted(drawn, key=lambda figure: figure.name != lead)


def picture(figure: Figure) -> Markup:
    """The figure inside the page, in its ink. Matplotlib has escaped the texts of users in it."""
    if len(figure.svg) <= HEAVY:
        # with a name, and what it inherits: its panels are shown once more, one by one (figures.html)
        return Markup(figure.svg.decode().replace("<g>", f'<g id="drawn-{figure.name}" {TEXTS}>', 1))
    return Markup('<img alt="" src="{}">').format(html.data_address(figure.png))


def _warned(content: Content) -> list[str]:
    """What a reader must not miss: above everything else."""
    synthetic = [note for note in content.board.notes if note.startswith("SYNTHETIC")]
    filtered = [f"{content.filtered} Without --filter the report shows all."] if content.filtered else []
    beside = [content.beside] if content.beside else []
    number = plural(len(content.unread), "folder")
    unread = [f"{number} could not be read as a run: see Folders not read, below."] if content.unread else []
    return [*synthetic, *filtered, *beside, *unread]


def _synthetic(groups: Groups) -> str:
    return ", synthetic data" if groups.synthetic and "dataset" not in groups.varying else ""


def _colors(groups: Groups) -> dict[str, str]:
    """Black would be lost on a dark page."""
    return {name: style.color.replace("#000000", "currentColor") for name, style in palette(groups.schemes).items()}
