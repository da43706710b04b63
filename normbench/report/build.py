"""A study's report: a page, tables and pictures from the files of its runs. Never imports torch."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from normbench.analysis import answer as analysis  # whole: its `tables` is not our module of that name
from normbench.analysis.answer import Options
from normbench.analysis.groups import Groups, read
from normbench.analysis.leaderboard import Leaderboard, leaderboard
from normbench.analysis.notes import differences
from normbench.analysis.selection import Filter, ReportError, format_filter, parse, select
from normbench.report.files import write_files
from normbench.runs import load, load_together

if TYPE_CHECKING:
    from normbench.claims.report import Extra
    from normbench.plots.view import View
    from normbench.report.content import Content
    from normbench.report.explorer import Explorer


@dataclass(frozen=True, eq=False)
class Report:
    """What was built: `page` is the file to open, `files` lists it and all others."""

    page: Path
    files: tuple[Path, ...]
    content: Content

    @property
    def leaderboard(self) -> Leaderboard:
        return self.content.board


def build(
    folder: str | Path,
    options: Options | None = None,
    only: Filter | None = None,
    question: str = "",
    extra: Callable[[Groups], Extra] | None = None,
    pdf: bool = False,
    beside: Path | None = None,
) -> Report:
    """Write `report/` into a study's folder: page, tables, figures. The same runs give the same bytes.

    Args:
        options: of the statistics; left out, the usual ones.
        only: the runs with one of these values for each key alone, {"norm": ["batch"]}; the report says so.
        question: that the study answers, for the head of the page.
        extra: tables and sentences of others, which come first; not where `only` leaves a part of the runs.
        pdf: write the figures as PDF, too.
        beside: another study, drawn into the same figures in settings of its own; tables and sentences are of `folder`.

    Raises:
        FileNotFoundError: there is no run in `folder`.
        ReportError: no run is as `only` or `options` ask for, or none of `beside`.
        OSError: the folder can't be written.
    """
    from normbench.report.page import render

    folder = Path(folder)
    content = compile_content(folder, options or Options(), only or {}, question, extra, pdf, beside)
    files = content.files()
    files["report.html"] = render(content).encode()  # last: whoever sees a new page finds what it links to
    written = write_files(folder / "report", files)
    return Report(folder / "report" / "report.html", written, content)


def compile_content(
    folder: Path,
    options: Options,
    only: Filter,
    question: str,
    extra: Callable[[Groups], Extra] | None = None,
    pdf: bool = False,
    beside: Path | None = None,
) -> Content:
    """Read, count, draw: everything but writing. Arguments and errors are those of `build`."""
    from normbench.analysis.reproduce import every_run
    from normbench.claims.report import Extra
    from normbench.plots.figures import draw_all  # matplotlib takes half a second that tables alone don't need
    from normbench.plots.view import View
    from normbench.report.content import Content

    everything = load(folder)
    chosen = select(everything, only)
    groups = read(chosen)
    try:
        reference, _ = analysis.check(groups, options)
    except ValueError as error:
        raise ReportError(str(error)) from error
    filtered = ""
    if only:
        filtered = (
            f"Filtered: {format_filter(only)}. {len(groups.members)} of the study's {len(list(everything))} runs."
        )
    drawn, own, words = groups, "", ""
    if beside:
        both = load_together(folder, beside)
        own, *_, other = (run.study for run in both)
        drawn = read(select(both, only))
        count = sum(run.study == other for run in drawn.members)
        if not count:
            raise ReportError(f"{beside} holds no run to draw beside {folder}: none that can be read, or is asked for.")
        words = (
            f"The figures and the layer explorer also show study {other} ({count} run{'s' * (count > 1)}). Tables and "
            f"answers are of study {own} alone; normbench diff compares the two."
        )
    view = View(drawn, (reference, options.margin), own)
    first = extra(groups) if extra is not None and not only else Extra()
    return Content(
        board=leaderboard(groups),
        tables=[*first.tables, *analysis.tables(groups, options)],
        runs=every_run(groups),
        question=next((str(q) for e in groups.members if (q := e.config.get("question"))), question),
        answer=analysis.answer(groups, options),
        differences=differences(groups),
        filtered=filtered,
        beside=words,
        command=_command(folder, options, only, beside),
        unread={**groups.unreadable, **_strangers(folder)},
        figures=draw_all(view, pdf),
        claims=first.claims,
        main=first.main,
        explorer=_explore(view),
    )


def _explore(view: View) -> Explorer | None:
    """None also where it fails, as no table should be lost to a picture."""
    from normbench.report.explorer import explorer

    try:
        return explorer(view)
    except Exception:
        logging.getLogger(__name__).exception("the layer explorer could not be made")
        return None


def _command(folder: Path, options: Options, only: Filter, beside: Path | None) -> str:
    usual = Options()
    words = ["normbench", "report", f"results/{folder.resolve().name}"]
    words += ["--beside", str(beside)] if beside else []
    words += ["--reference", options.reference] if options.reference else []
    words += ["--margin", f"{options.margin:g}"] if options.margin != usual.margin else []
    words += [word for target in options.targets or () for word in ("--target", f"{target:g}")]
    words += ["--filter", *(f"{key}={','.join(values)}" for key, values in only.items())] if only else []
    return shlex.join(words)


def _strangers(folder: Path) -> Mapping[str, str]:
    """Folders that are no runs, but for our own and hidden ones."""
    found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "report")
    return {path.name: "has no config.yaml: not a run" for path in found if not (path / "config.yaml").exists()}


__all__ = [
    "Groups",
    "Leaderboard",
    "Options",
    "Report",
    "ReportError",
    "build",
    "leaderboard",
    "parse",
    "read",
]
