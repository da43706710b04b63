"""What claims add to the report of their study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from normbench.analysis.groups import Groups
from normbench.analysis.notes import SYNTHETIC
from normbench.analysis.tables import Table
from normbench.claims.claim import STATEMENTS, claims
from normbench.claims.scoreboard import calculated, checks, needs, statements
from normbench.claims.verdicts import Judged, judge


@dataclass(frozen=True, eq=False)
class Extra:
    """What stands before everything else in a study's report, and its sentences after the answer's."""

    tables: Sequence[Table] = ()
    claims: Sequence[Judged] = ()
    answer: Sequence[str] = ()


def answers(study: str) -> Callable[[Groups], Extra] | None:
    """The claims of a study, answered from its runs; None where it has none. Raises ClaimError."""
    own = [claim for claim in claims() if claim.study == study]

    def extra(groups: Groups) -> Extra:
        known = calculated(groups.folder.parent)
        found = [judge(claim, groups, known) for claim in own]
        synthetic = f"{SYNTHETIC} " * groups.synthetic
        made = [replace(table, caption=synthetic + table.caption) for table in (statements(found), checks(found))]
        words = [
            f"Claim {judged.claim.id}, {STATEMENTS[key]}: {judged.verdict(key)} "
            f'({needs(judged, key) or judged.why(key)}): "{sentence}"'
            for judged in found
            for key, sentence in judged.claim.statements.items()
        ]
        return Extra(made, found, words)

    return extra if own else None
