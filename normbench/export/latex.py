r"""The tables of a report in LaTeX, with intervals: a file with a `tabular` for each, and a document that has them all.

They need the packages booktabs and array, which the document loads. Whatever stands in a name, it is text and never a
command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from normbench.analysis.answer import tables
from normbench.analysis.groups import Groups, read
from normbench.analysis.leaderboard import leaderboard
from normbench.analysis.tables import Table, setting_columns
from normbench.runs import Study

LONG = 40  # characters of a cell above which its column wraps
WRAPPED = r">{\raggedright\arraybackslash}p{60mm}"
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}",
    **{sign: f"\\{sign}" for sign in "{}$&#%_"},
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # behind the end of a row, \\, these would be its options
    "–": r"\textendash{}", "—": r"\textemdash{}", "…": r"\ldots{}", "’": "'", "−": "$-$", "±": r"$\pm$",
    "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\leq$", "≥": r"$\geq$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "σ": r"$\sigma$",
}  # fmt: skip

DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp,array,booktabs,graphicx}
\usepackage[landscape,margin=15mm]{geometry}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\newsavebox{\tablebox}
% A table in its own size, or as much smaller as the page asks for.
\newcommand{\fit}[1]{\sbox{\tablebox}{\input{#1}\unskip}%
  \ifdim\wd\tablebox>\linewidth\sbox{\tablebox}{\resizebox{\linewidth}{!}{\usebox{\tablebox}}}\fi
  \ifdim\dimexpr\ht\tablebox+\dp\tablebox\relax>0.7\textheight
    \sbox{\tablebox}{\resizebox*{!}{0.7\textheight}{\usebox{\tablebox}}}\fi
  \usebox{\tablebox}}
\begin{document}
"""


def latex(study: Study) -> Iterator[tuple[str, bytes]]:
    r"""`tables.tex`, which compiles, and for each table of the report NAME.tex, to be \input into a table of yours.

    The leaderboard has the columns that the page shows first. Commands, which are for a terminal, are left out.
    """
    groups = read(study)
    found = [_shown(table, groups) for table in tables(groups) if table.rows]
    yield "tables.tex", (DOCUMENT + "".join(map(_float, found)) + "\\end{document}\n").encode()
    for table in found:
        yield f"{table.name}.tex", tabular(table).encode()


def _shown(table: Table, groups: Groups) -> Table:
    if table.name == "leaderboard":
        board = leaderboard(groups)
        table = replace(table, columns=[*setting_columns(groups), *board.short], caption=" ".join(board.notes))
    texts = zip(*map(table.texts, table.rows), strict=True)
    columns = zip(table.columns, texts, strict=True)
    return replace(table, columns=[column for column, cells in columns if any(cells) and column.key != "command"])


def _float(table: Table) -> str:
    lines = [
        r"\begin{table}[p]",
        r"\centering",
        rf"\caption{{\textbf{{{escape(table.title)}.}} {escape(table.caption)}}}",
    ]
    lines += [rf"\label{{tab:{table.name}}}", rf"\fit{{{table.name}}}", r"\end{table}", r"\clearpage", ""]
    return "\n".join(lines)


def tabular(table: Table) -> str:
    """The table alone; a column of long texts wraps."""
    cells = [table.texts(row) for row in table.rows]
    widest = [max(map(len, column)) for column in zip(*cells, strict=True)]
    kinds = [
        WRAPPED if width > LONG else "r" if column.numeric else "l"
        for column, width in zip(table.columns, widest, strict=True)
    ]
    lines = [rf"\begin{{tabular}}{{{''.join(kinds)}}}", r"\toprule", _row([c.heading for c in table.columns])]
    return "\n".join([*lines, r"\midrule", *map(_row, cells), r"\bottomrule", r"\end{tabular}", ""])


def _row(texts: list[str]) -> str:
    return rf"{' & '.join(map(escape, texts))} \\"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is: ASCII and the letters of Latin-1. Other characters are named, "[U+4E2D]", as a
    LaTeX without the right fonts stops at them. A minus before a number is one, two hyphens stay two.
    """
    written = "".join(map(_sign, " ".join(text.split())))
    return re.sub(r"(?<![\w-])-(?=\.?\d)", "$-$", re.sub("-(?=-)", "-{}", written))


def _sign(sign: str) -> str:
    if sign in SPECIAL:
        return SPECIAL[sign]
    return sign if " " <= sign <= "~" or ("À" <= sign <= "ÿ" and sign != "÷") else f"{{[}}U+{ord(sign):04X}{{]}}"
