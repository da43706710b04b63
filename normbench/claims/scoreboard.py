"""The scoreboard: every statement with its verdict, as a table, a picture and files in results/claims/report."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle

from normbench.analysis.tables import Column, Table, number
from normbench.claims import tables
from normbench.claims.checks import judge
from normbench.claims.claim import Claim
from normbench.claims.report import calculated
from normbench.claims.status import OUT_OF_DATE, folder, status_of
from normbench.claims.verdicts import LOOKS
from normbench.files import write_atomically
from normbench.plots.drawing import Figure, finish, look

NAME, TITLE = "scoreboard", "Claims and what our runs say"
WIDTH, LINE, SIGNS = 12.5, 0.17, 68  # inches: of all, of the height of a line; signs in a line
PLACES = (1.5, 3.3, 7.9)  # inches from the left


def write(claims: Sequence[Claim], results: Path) -> None:
    """Write the scoreboard, and the answers of claims of calculations alone beside it. Raises OSError."""
    here = folder(results)
    here.mkdir(parents=True, exist_ok=True)
    alone = [judge(claim, None, calculated(results)) for claim in claims if not claim.study]
    if alone:
        (here / "tables").mkdir(exist_ok=True)
        for made in (tables.statements(alone), tables.checks(alone)):
            write_atomically(here / "tables" / f"{made.name}.csv", made.to_csv().encode())
    rows = status_of(claims, results)
    shown = table(rows)
    write_atomically(here / f"{NAME}.csv", shown.to_csv().encode())
    write_atomically(here / f"{NAME}.md", shown.to_markdown().encode())
    write_atomically(here / f"{NAME}.png", draw(rows).png)


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    found = Counter(row["verdict"] or "not run" for row in rows)
    counts = [f"{found[word]} {word}" for word in (*LOOKS, OUT_OF_DATE, "not run") if found[word]]
    machines = dict.fromkeys(row["machine"] for row in rows if row["machine"])
    caption = (
        f"{len(rows)} statements: {', '.join(counts)}. Beside each the first of its checks: number, interval, and what "
        "the claim expects; the report of its study has them all. Minutes: wall time of its study with its report, all "
        f"calls together. Machine: {'; '.join(machines) or 'not known'}."
    )
    columns = [
        Column("claim", "claim", numeric=False),
        Column("statement", "", numeric=False),
        Column("sentence", "statement", numeric=False),
        Column("verdict", "verdict", lambda value: value or "not run", numeric=False),
        Column("checks", "checks", numeric=False),
        Column("check", "first check", numeric=False),
        Column("measured", "number", numeric=False),
        Column("expected", "expected", numeric=False),
        Column("wall_seconds", "min", number("{:.1f}", 1 / 60)),
        Column("command", "command", lambda value: f"`{value}`", numeric=False),
        Column("figure", "figure", numeric=False),
        Column("source", "source", numeric=False),
    ]
    return Table(NAME, TITLE, caption, columns, rows)


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A line for each statement: verdict, sentence, and its first check in words."""
    blocks = [_blocks(row) for row in rows]
    tall = [max(map(len, each)) + 0.8 for each in blocks]
    with look():
        canvas = Canvas(figsize=(WIDTH, LINE * (sum(tall) + 2)))
        ax = canvas.subplots()
        ax.axis("off")
        ax.set_xlim(0, WIDTH)
        ax.set_ylim(sum(tall), -1.2)
        for x, heading in zip(PLACES, ("claim", "statement", "first check"), strict=True):
            ax.text(x, -0.6, heading, va="center", color="#555555")
        top = 0.0
        for row, words, height in zip(rows, blocks, tall, strict=True):
            mark, color = LOOKS.get(row["verdict"], ("", "#FFFFFF"))
            middle = top + (height - 0.3) / 2
            ax.add_patch(Rectangle((0, top), 1.35, height - 0.3, facecolor=color, edgecolor="#BBBBBB", linewidth=0.5))
            verdict = f"{mark} {row['verdict'] or 'not run'}".strip()
            ax.text(0.08, middle, verdict, va="center", fontsize=8, color="white" if mark else "#555555")
            for x, lines in zip(PLACES, words, strict=True):
                ax.text(x, middle, "\n".join(lines), va="center", fontsize=8)
            top += height
        return finish(NAME, TITLE, "", canvas, synthetic=False)


def _blocks(row: Mapping[str, Any]) -> list[list[str]]:
    """Under each heading, lines."""
    check = textwrap.wrap(row["check"], SIGNS)
    found = [f"{row['measured']}, expected {row['expected']}"] if row["measured"] else []
    return [[row["claim"], row["statement"]], textwrap.wrap(row["sentence"], SIGNS), check + found]
