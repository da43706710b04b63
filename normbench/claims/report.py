"""What claims add to the report of their study."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from normbench.analysis.groups import Groups
from normbench.analysis.notes import SYNTHETIC
from normbench.analysis.tables import Table
from normbench.claims.claim import STATEMENTS, claims
from normbench.claims.scoreboard import calculated, checks, statements
from normbench.claims.verdicts import judge

if TYPE_CHECKING:
    from normbench.plots.drawing import Figure


@dataclass(frozen=True, eq=False)
class Extra:
    """What stands before everything else in a study's report, and its sentences after the answer's."""

    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    answer: Sequence[str] = ()


def answers(study: str) -> Callable[[Groups], Extra] | None:
    """The claims of a study, answered from its runs; None where it has none. Raises ClaimError."""
    own = [claim for claim in claims() if claim.study == study]

    def extra(groups: Groups) -> Extra:
        from normbench.claims import figure  # matplotlib takes half a second that the list of claims does not need

        known = calculated(groups.folder.parent)
        found = [judge(claim, groups, known) for claim in own]
        try:
            drawn = figure.draw(found, groups.synthetic)
        except Exception as error:  # a picture must not cost a study its tables
            logging.getLogger(__name__).exception("the claims could not be drawn")
            drawn = figure.empty(f"Could not be drawn: {type(error).__name__}: {error}")
        synthetic = f"{SYNTHETIC} " * groups.synthetic
        made = [replace(table, caption=synthetic + table.caption) for table in (statements(found), checks(found))]
        words = [
            f'Claim {judged.claim.id}, {STATEMENTS[key]}: {judged.verdict(key)} ({judged.counted(key)}): "{sentence}"'
            for judged in found
            for key, sentence in judged.claim.statements.items()
        ]
        return Extra(made, [drawn], words)

    return extra if own else None
