"""A study's report: tables and pictures from the files of its runs. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from normbench.report.cells import read
from normbench.report.leaderboard import Leaderboard, leaderboard
from normbench.report.tables import print_leaderboard, to_csv, to_markdown
from normbench.runs import load, write_atomically


@dataclass(frozen=True, eq=False)
class Report:
    """What was built: `page` is the file to open, `files` lists it and all others."""

    page: Path
    files: tuple[Path, ...]
    leaderboard: Leaderboard


def build(folder: str | Path) -> Report:
    """Write `report/` into a study's folder: the page, the leaderboard, the figures. The same runs give the same bytes.

    Raises:
        FileNotFoundError: there is no run in `folder`.
        OSError: the folder can't be written.
    """
    from normbench.report.figures import draw_all  # matplotlib takes half a second that tables alone don't need
    from normbench.report.page import render

    cells = read(load(folder))
    board = leaderboard(cells)
    figures = draw_all(cells)
    files = {"leaderboard.csv": to_csv(board).encode(), "leaderboard.md": to_markdown(board).encode()}
    for figure in figures:
        if figure.svg:
            files |= {f"figures/{figure.name}.svg": figure.svg, f"figures/{figure.name}.png": figure.png}
    files["report.html"] = render(board, figures).encode()  # last: whoever sees a new page finds its figures

    target = Path(folder) / "report"
    (target / "figures").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomically(target / name, data)
    for old in (target / "figures").iterdir():
        if old.suffix in (".svg", ".png") and f"figures/{old.name}" not in files:
            old.unlink()  # a figure of an earlier build that this page doesn't show
    return Report(target / "report.html", tuple(target / name for name in files), board)


__all__ = ["Leaderboard", "Report", "build", "leaderboard", "print_leaderboard", "read"]
