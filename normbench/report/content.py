"""Everything that a report says, before it becomes a page and files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from normbench.analysis.groups import Groups
from normbench.analysis.leaderboard import Leaderboard, leaderboard_table, to_markdown
from normbench.analysis.notes import constants
from normbench.analysis.tables import Table, escape
from normbench.claims.scoreboard import verdict_words
from normbench.claims.verdicts import Judged
from normbench.plots.drawing import Figure
from normbench.report.explorer import Explorer


@dataclass(frozen=True, eq=False)
class Content:
    """A study's numbers, words and pictures.

    Args:
        question: that the study was made to answer; empty where it is not known.
        answer: sentences.
        differences: what else differs between the runs that are compared.
        runs: one row for each of them.
        claims: that the study answers.
        main: of these, the one that answers its question.
        filtered: which runs these are, in a sentence; empty where they are all.
        beside: which other study the figures show, in sentences; empty where they show none.
        command: that builds this report again.
        unread: folders that hold no run, or none that can be read: name -> why.
        explorer: distributions of each layer over training; None where no run has measured them.
    """

    board: Leaderboard
    tables: Sequence[Table]
    figures: Sequence[Figure]
    runs: Table
    claims: Sequence[Judged] = ()
    main: Judged | None = None
    question: str = ""
    answer: Sequence[str] = ()
    differences: Sequence[str] = ()
    filtered: str = ""
    beside: str = ""
    command: str = ""
    unread: Mapping[str, str] = field(default_factory=dict)
    explorer: Explorer | None = None

    @property
    def groups(self) -> Groups:
        return self.board.study

    @property
    def leaderboard(self) -> Table | None:
        """As a plain table, every number beside the other."""
        return next((table for table in self.tables if table.name == "leaderboard"), None)

    @property
    def first(self) -> list[Table]:
        """Those before the leaderboard."""
        return list(takewhile(lambda table: table.name != "leaderboard", self.tables))

    @property
    def others(self) -> list[Table]:
        return [table for table in self.tables if table.name != "leaderboard"]

    @property
    def conclusions(self) -> list[str]:
        """What the study says, in sentences."""
        return [*(verdict_words(self.main) if self.main else ()), *self.answer]

    @property
    def sentences(self) -> list[str]:
        """The answer without the warning of synthetic data: its first paragraph, which recommends, by sentence."""
        first, *others = [words for words in self.answer if not words.startswith("SYNTHETIC")] or [""]
        return [*filter(None, re.split(r"(?<=\.) (?=[A-Z])", first)), *others]

    def files(self) -> dict[str, bytes]:
        """Every file but the page: name inside report/ -> bytes."""
        board = self.board
        texts = {"leaderboard.csv": leaderboard_table(board).to_csv()}
        texts |= {"leaderboard.md": self._leaderboard(), "tables.md": self._tables()}
        texts |= {f"tables/{table.name}.csv": table.to_csv() for table in [*self.others, self.runs] if table.rows}
        files = {name: text.encode() for name, text in texts.items()}
        for figure in self.figures:
            if figure.svg:
                kinds = {"svg": figure.svg, "png": figure.png, "pdf": figure.pdf}
                files |= {f"figures/{figure.name}.{kind}": data for kind, data in kinds.items() if data}
        return files

    def _leaderboard(self) -> str:
        """With the filter, if there is one, below the title: a part must not pass for the whole."""
        title, newline, rest = to_markdown(self.board).partition("\n")
        return f"{title}\n\n> {escape(self.filtered)}\n{rest}" if self.filtered else title + newline + rest

    def _tables(self) -> str:
        """What the page says above its tables, and all of them but that of the runs."""
        said = [self.question, *self.conclusions]
        warned = [f"> {escape(words)}" for words in (self.filtered, *self.differences) if words]
        lines = [f"# {escape(self.groups.folder.name)}", *map(escape, filter(None, said)), *warned]
        lines.append("All runs: `" + constants(self.groups).replace("`", "'") + "`")
        return "\n\n".join([*lines, *(table.to_markdown() for table in self.tables)]).rstrip("\n") + "\n"
