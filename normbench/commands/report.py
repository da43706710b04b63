"""`normbench report`: the report of a study, and what is said when that can't be had."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from normbench.commands import console
from normbench.commands.arguments import add_study, path, study_of
from normbench.config.options import experiment_of
from normbench.errors import UserError
from normbench.runs import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from normbench.analysis.groups import Group, Groups, Setting
    from normbench.analysis.selection import Filter
    from normbench.report import Options, Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_study(parser)
    add("--reference", metavar="SCHEME", help="the scheme that all others are compared with; default: none")
    words = "differences below it count as none (equivalence); default: 0.5 points"
    add("--margin", metavar="POINTS", type=float, default=0.5, help=words)
    words = "accuracy to time the way to; default: two that the runs reach"
    add("--target", metavar="SHARE", type=float, action="append", help=words)
    words = "only runs with one of the values of each key: --filter norm=batch,layer batch_size=4; the page says so"
    add("--filter", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=words)
    words = "another study, such as last year's: drawn into the same figures, in panels of its own"
    add("--beside", metavar="OTHER", type=path, help=words)
    words = "of the figures' files: png,svg,pdf; PNG and SVG, which the page links to, are always written"
    add("--formats", metavar="LIST", default="png,svg", help=words)
    add("--open", action="store_true", help="open the page in your browser")


def run(options: argparse.Namespace) -> int:
    """Build the report of a study and print it in short. Returns 0. Raises UserError."""
    from normbench import report

    folder, targets = study_of(options.study), tuple(sorted(set(options.target))) if options.target else None
    formats = options.formats.split(",")
    if not set(formats) <= {"png", "svg", "pdf"}:
        raise UserError(f"--formats is a list of png, svg and pdf: got {options.formats!r}. Try --formats png,svg,pdf.")
    try:
        if options.beside:
            load(options.beside)
    except FileNotFoundError as error:
        raise UserError(f"--beside {error}") from error
    try:
        wanted = report.Options(options.reference, options.margin, targets)
        built = build(folder, wanted, report.parse(options.filter), "pdf" in formats, options.beside)
    except FileNotFoundError as error:
        found = sorted({path.parent.parent.as_posix() for path in Path("results").glob("*/*/config.yaml")})
        others = f" There are: {', '.join(found)}." if found and not folder.exists() else ""
        experiment, _ = experiment_of(folder.resolve().name)
        makes = f" Its runs are made by: normbench run experiment={experiment}" if experiment else ""
        raise UserError(f"{error}{others}{makes}") from error
    except report.ReportError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"the report can't be written: {error}.") from error
    if options.open:
        _open(built.page)
    return 0


def build(
    folder: Path,
    options: Options | None = None,
    only: Filter | None = None,
    pdf: bool = False,
    beside: Path | None = None,
) -> Report:
    """Write the report of the study in `folder`; print its accuracies, a sentence, and where the page is.

    Raises: as `report.build`.
    """
    console.announce(f"building the report of {console.shortened(folder)}")
    from normbench import report
    from normbench.claims.report import answers

    name = folder.resolve().name
    built = report.build(folder, options, only, experiment_of(name)[1], answers(name), pdf, beside)
    try:
        content = built.content
        _print_accuracies(content.groups)
        answered = content.conclusions if content.main else content.sentences
        unread = [f"not read: {run} ({why})" for run, why in content.unread.items()]
        for words in filter(None, [*answered[:1], content.filtered, content.beside, *unread]):
            console.say(words)
        console.say(f"report: {console.shortened(built.page)}")
    except BrokenPipeError:  # the reader has seen enough
        raise
    except OSError as error:  # such as a full disk, on which the output of this command lies
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit
        why = f"standard output can't be written ({error.strerror}), the report is built: {built.page}"
        logging.getLogger(__name__).error("normbench: %s", why)
    return built


def _print_accuracies(groups: Groups) -> None:
    words, rows = accuracies(groups)
    console.say(words)
    console.print_table(rows[0], rows[1:])


def accuracies(groups: Groups) -> tuple[str, list[Sequence[str]]]:
    """What the table has, and its rows, scheme x setting, below one of headings: each scheme at its own best lr, or at
    every lr where nothing else was swept."""
    from normbench.analysis import best_lr

    chosen, how = best_lr.choices(groups), ""
    cells: Mapping[Setting, Mapping[str, Group]] = groups.settings
    rows = _accuracies(cells, groups.schemes)
    width = sum(2 + max(len(line) for text in texts for line in text.split("\n")) for texts in zip(*rows, strict=True))
    if best_lr.several(chosen) and (len(chosen) > 1 or width > console.out.width):
        cells, how = best_lr.cells(groups)
        rows = _accuracies(cells, groups.schemes)
    seeds = {len(group.accuracies()) for found in cells.values() for group in found.values()} - {0} or {0}
    n = f"n = {min(seeds)}" + f" to {max(seeds)}" * (len(seeds) > 1)
    how += ", synthetic data" * groups.synthetic
    return f"test accuracy in %, mean{' and 95% interval' * (max(seeds) > 1)}, {n}{how}", rows


def _accuracies(cells: Mapping[Setting, Mapping[str, Group]], schemes: Sequence[str]) -> list[Sequence[str]]:
    """The texts of the table, its longer side down."""
    from normbench.analysis.groups import label

    names = [label(setting, "test accuracy").replace(", ", "\n") for setting in cells]
    names = [re.sub(r" (?=\S+$)", "\n", name, flags=re.MULTILINE) for name in names]
    rows = [["", *names], *([scheme, *(_accuracy(of.get(scheme)) for of in cells.values())] for scheme in schemes)]
    if len(cells) <= len(schemes):
        return [*rows]
    return [[row[0].replace("\n", " "), *row[1:]] for row in zip(*rows, strict=True)]


def _accuracy(group: Group | None) -> str:
    """ "95.1 ± 0.2"; what became of runs without a result."""
    from normbench.analysis.statistics import estimate_accuracy

    if group is None:
        return ""
    if not (found := estimate_accuracy(list(group.accuracies().values()))):
        return group.statuses[0]
    text = f"{100 * found.mean:.1f}"
    if found.low is not None and found.high is not None:
        ends = found.low == 0 or found.high == 1  # where it was cut off
        text += f" ({100 * found.low:.0f} to {100 * found.high:.0f})" * ends
        text += f" ± {100 * (found.high - found.mean):.1f}" * (not ends)
    return text + f"\n{group.diverged}" * bool(group.diverged)


def _open(page: Path) -> None:
    """Show a page in the user's browser; where there is none, say so: the page is built all the same."""
    import webbrowser

    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except (OSError, webbrowser.Error):
        opened = False
    if not opened:
        console.say(f"No browser was found. Open it yourself: {page.resolve()}")
