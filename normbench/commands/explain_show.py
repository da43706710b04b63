"""An explanation as text: the whole calculation, or a worksheet with a key."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from rich.markup import escape
from rich.text import Text

from normbench.commands import console
from normbench.explain.steps import Step, cells

WIDTH = 96


def show(steps: Sequence[Step], facts: dict[str, Any], worksheet: bool) -> None:
    console.say(facts["network"])
    _words(facts["where"])
    for number, step in enumerate(steps, start=1):
        _heading(f"{number}. {step.title}")
        for line in step.formula.splitlines():
            console.say("\n".join(wrap(line, WIDTH, initial_indent="    ", subsequent_indent="      ")))
        _words(step.words)
        _table(step, blank=worksheet)
    if worksheet:
        _heading("Key")
        for number, step in enumerate(steps, start=1):
            if step.asked:
                console.say(f"\n{number}. {step.title}")
                _table(step, blank=False)


def _heading(text: str) -> None:
    console.out.print(Text(f"\n{text}", style="bold"), soft_wrap=True)


def _words(text: str) -> None:
    for line in wrap(text, WIDTH):
        console.say(line)


def _table(step: Step, blank: bool) -> None:
    table = console.plain_table()
    for i, column in enumerate(step.columns):
        table.add_column(escape(column), justify="right" if i else "left", no_wrap=True)
    for row in cells(step, blank):
        table.add_row(*map(escape, row))
    console.out.print(table)
