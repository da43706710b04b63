"""What claims add to the report of their study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from normbench.analysis.groups import Groups
from normbench.analysis.notes import SYNTHETIC
from normbench.analysis.tables import Table
from normbench.claims.claim import claims
from normbench.claims.scoreboard import calculated, checks, statements
from normbench.claims.verdicts import Judged, judge


@dataclass(frozen=True, eq=False)
class Extra:
    """What stands before everything else in a study's report. `main`: the claim that answers the study's question."""

    tables: Sequence[Table] = ()
    claims: Sequence[Judged] = ()
    main: Judged | None = None


def answers(study: str) -> Callable[[Groups], Extra] | None:
    """The claims of a study, answered from its runs; None where it has none. Raises ClaimError."""
    own = [claim for claim in claims() if claim.study == study]

    def extra(groups: Groups) -> Extra:
        known = calculated(groups.folder.parent)
        found = [judge(claim, groups, known) for claim in own]
        synthetic = f"{SYNTHETIC} " * groups.synthetic
        made = [replace(table, caption=synthetic + table.caption) for table in (statements(found), checks(found))]
        return Extra(made, found, next((judged for judged in found if judged.claim.main), None))

    return extra if own else None
