"""What claims add to the report of their study."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from normbench.analysis.groups import Groups
from normbench.analysis.notes import SYNTHETIC
from normbench.claims.claim import STATEMENTS, Claim, claims
from normbench.claims.scoreboard import calculated
from normbench.claims.tables import counted
from normbench.claims.verdicts import Answer, Calculated, Judged, judge

if TYPE_CHECKING:
    from normbench.analysis.tables import Table
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
    if not own:
        return None

    def extra(groups: Groups) -> Extra:
        from normbench.claims import figure, tables
        from normbench.plots.drawing import Figure, look

        known = calculated(groups.folder.parent)
        found = [_judged(claim, groups, known) for claim in own]
        try:
            with look():
                figures = figure.draw(found, groups.synthetic)
        except Exception as error:  # a picture must not cost a study its tables
            logging.getLogger(__name__).exception("the claims could not be drawn")
            figures = [Figure(figure.NAME, figure.TITLE, f"Could not be drawn: {type(error).__name__}: {error}")]
        made = [tables.statements(found), tables.checks(found)]
        if groups.synthetic:
            made = [replace(table, caption=f"{SYNTHETIC} {table.caption}") for table in made]
        words = [
            f"Claim {judged.claim.id}, {STATEMENTS[key]}: {judged.verdict(key)} ({counted(judged, key)})."
            for judged in found
            for key in judged.claim.statements
        ]
        return Extra(made, figures, words)

    return extra


def _judged(claim: Claim, groups: Groups, known: Calculated) -> Judged:
    """`judge`; where that breaks, such as at a damaged table, the answers say so and the report goes on."""
    try:
        return judge(claim, groups, known)
    except Exception as error:
        logging.getLogger(__name__).exception("claim %s could not be answered", claim.id)
        why = f"could not be answered: {type(error).__name__}: {error}"
        return Judged(claim, tuple(Answer(check, remarks=why) for check in claim.checks))
