"""Schemes against a reference, paired by seed: everything but the scheme is the same, the first weights included."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

from normbench.analysis.columns import COMMAND, REMARKS, SCHEME, number, points, probability, setting_columns, where
from normbench.analysis.entries import Entry
from normbench.analysis.groups import Cell, Cells, Setting
from normbench.analysis.power import MOST, seeds_needed
from normbench.analysis.reproduce import again
from normbench.analysis.statistics import Comparison, compare, holm, verdict
from normbench.analysis.table import Column, Table

LEVEL = 0.05
FIRST = 5  # pairs to start with where there is no spread yet to plan from
FRESH = 3  # fresh seeds from which on they replace those that chose an lr: the t interval of two is useless


@dataclass(frozen=True, eq=False)
class Pairing:
    """What is compared with what. `cell` or `reference` is None where there is no run.

    Args:
        seeds: only runs with these; None: all.
        chosen: these seeds have helped to choose an lr, so that only fresh ones will count once there are some.
        taken: seeds that would not be fresh.
    """

    setting: Setting
    scheme: str
    cell: Cell | None
    reference: Cell | None
    seeds: Collection[Any] | None = None
    chosen: bool = False
    taken: Collection[Any] = ()

    def runs(self, cell: Cell | None) -> list[Entry]:
        return [e for e in cell.entries if self.seeds is None or e.seed in self.seeds] if cell else []


@dataclass(frozen=True, eq=False)
class Versus:
    """A comparison with what it takes the others of its table to know: adjusted p values and the verdict from them."""

    pairing: Pairing
    result: Comparison
    p: float | None
    p_equivalent: float | None
    verdict: str | None
    seeds_needed: int | None
    command: str
    remarks: str


def accuracies(entries: Sequence[Entry]) -> dict[Any, float]:
    """Test accuracy by seed, of the complete runs."""
    found = {e.seed: e.summary.get("test_accuracy") for e in entries if e.status == "complete"}
    return {seed: value for seed, value in found.items() if value is not None}


def compare_all(pairings: Sequence[Pairing], margin: float) -> list[Versus]:
    """Compare test accuracies pair by pair, and adjust over all of them: one call is one table.

    Args:
        margin: of equivalence, as a fraction: 0.005 is half a point.
    """
    results = []
    for pairing in pairings:
        ours, theirs = (accuracies(pairing.runs(cell)) for cell in (pairing.cell, pairing.reference))
        seeds = [seed for seed in ours if seed in theirs]
        results.append(compare([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], margin))
    adjusted, adjusted_equivalent = holm([r.p for r in results]), holm([r.p_equivalent for r in results])
    levels = (_level(adjusted), _level(adjusted_equivalent))
    found = []
    for pairing, result, p, p_eq in zip(pairings, results, adjusted, adjusted_equivalent, strict=True):
        word, needed, more = verdict(result.difference, p, p_eq, LEVEL), None, ""
        remarks = _remarks(pairing, result)
        if word == "inconclusive" and result.n == 1:
            more = _command(pairing, FIRST if pairing.chosen else FIRST - 1)
        elif word == "inconclusive" and result.sd and result.difference is not None:
            needed = seeds_needed(result.difference, result.sd, margin, *levels)
            if needed is None:
                remarks.append(f"too small a difference for seeds to settle: more than {MOST} needed at this spread")
            else:
                more = _command(pairing, max(needed, FRESH) if pairing.chosen else needed - result.n)
        found.append(Versus(pairing, result, p, p_eq, word, needed, more, "; ".join(remarks)))
    return found


def same_setting(cells: Cells, reference: str) -> list[Pairing]:
    """Each scheme against `reference` wherever everything else is the same, the learning rate too."""
    return [
        Pairing(setting, scheme, cell, by_scheme.get(reference))
        for setting, by_scheme in cells.settings.items()
        for scheme, cell in by_scheme.items()
        if scheme != reference
    ]


def comparisons(cells: Cells, reference: str, margin: float) -> tuple[Table, list[Versus]]:
    """The table in which all settings are equal, and what it is made from."""
    found = compare_all(same_setting(cells, reference), margin)
    rows = [where(cells, v.pairing.scheme, v.pairing.setting) | row(v, reference, margin) for v in found]
    caption = (
        f"Each scheme against {reference}, all settings equal, the lr too: test accuracy of the scheme minus that of "
        f"{reference} for the same seed. {how_to_read(found, margin)}"
    )
    columns = [SCHEME, *setting_columns(cells), *COLUMNS]
    note = "" if rows else f"Not compared: all runs are of {reference}. Runs of another scheme would supply it."
    return Table("comparisons", f"Against {reference}, same lr", caption if rows else "", columns, rows, note), found


def row(versus: Versus, reference: str, margin: float) -> dict[str, Any]:
    """Accuracies, differences and the margin are fractions of 1; the p values without "holm" are not adjusted."""
    result, pairing = versus.result, versus.pairing
    arms = {"scheme": pairing.runs(pairing.cell), "reference": pairing.runs(pairing.reference)}
    return {
        "reference": reference,
        "n": result.n,
        **{f"unpaired_{arm}": len(accuracies(entries)) - result.n for arm, entries in arms.items()},
        **{f"diverged_{arm}": _count(entries, "diverged") for arm, entries in arms.items()},
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "sd": result.sd,
        "correlation": result.correlation,
        "p": result.p,
        "p_holm": versus.p,
        "margin": margin,
        "p_equivalent": result.p_equivalent,
        "p_equivalent_holm": versus.p_equivalent,
        "verdict": versus.verdict,
        "seeds_needed": versus.seeds_needed,
        "command": versus.command,
        "remarks": versus.remarks,
    }


COLUMNS = (
    Column("difference", "difference, points", points),
    Column("low", "95% from", points),
    Column("high", "to", points),
    Column("n", "pairs"),
    Column("p_holm", "p (t, Holm)", probability),
    Column("p_equivalent_holm", "p (equivalence, Holm)", probability),
    Column("correlation", "correlation by seed", number("{:.2f}")),
    Column("verdict", "verdict", numeric=False),
    Column("seeds_needed", "seeds for 80% power"),
    REMARKS,
    COMMAND,
)


def how_to_read(found: Sequence[Versus], margin: float) -> str:
    pairs = sum(v.result.n for v in found)
    tests = sum(v.result.p is not None for v in found)
    return (
        f"From {pairs} pairs of runs; a run that diverged or is missing takes its pair out, which is counted here. "
        "Intervals are 95% Student t for the mean difference, one by one: new seeds on this test set, not new images. "
        f"p values are adjusted over the {tests} comparisons of this table that can be tested (Holm). better, worse: "
        "paired t test, p < 0.05. equivalent: less than "
        f"{100 * margin:g} points apart (TOST, p < 0.05), which goes first, as such a difference does not matter. "
        "inconclusive: neither; the seeds are what would give a verdict with 80% power at the difference and spread "
        "seen so far. A correlation above 0 says that pairing by seed helps."
    )


def _level(adjusted: Sequence[float | None]) -> float:
    """What the next comparison to pass has to undercut: where Holm's procedure has stopped."""
    return LEVEL / max(1, sum(p is not None and p >= LEVEL for p in adjusted))


def _count(entries: Sequence[Entry], status: str) -> int:
    return sum(entry.status == status for entry in entries)


def _remarks(pairing: Pairing, result: Comparison) -> list[str]:
    """What became of the runs that are in no pair, and what a reader could take wrongly."""
    words = []
    name = pairing.reference.scheme if pairing.reference else "the reference"
    sides = ((pairing.scheme, pairing.runs(pairing.cell)), (name, pairing.runs(pairing.reference)))
    for side, entries in sides:
        parts = [
            f"{n} {status}"
            for status in ("diverged", "failed", "running", "interrupted")
            if (n := _count(entries, status))
        ]
        if chance := sum(bool(e.summary.get("at_chance")) for e in entries if e.status == "complete"):
            parts.append(f"{chance} at chance")
        if parts:
            words.append(f"{side}: {', '.join(parts)} of {len(entries)}")
        words += dict.fromkeys(f"{side} unsupported: {e.reason}" for e in entries if e.status == "unsupported")
        if not entries:
            words.append(f"no run of {side} here")
    (ours, mine), (other, its) = sides
    for side, entries, opposite, others in ((ours, mine, other, its), (other, its, ours, mine)):
        if result.n and _count(entries, "diverged") and not _count(others, "diverged"):
            words.append(f"the pairs left flatter {side}: {side} diverged for other seeds and {opposite} did not")
        if others and (alone := sorted({e.seed for e in entries} - {e.seed for e in others})):
            words.append(f"seed {', '.join(map(str, alone))} of {side} has no partner")
    if result.n > 1 and result.sd == 0:
        same = "the same accuracy" if abs(result.difference or 0.0) < 1e-12 else "the same difference"
        words.append(f"{same} in all {result.n} pairs: without a spread there is no interval and no test")
    return words


def _command(pairing: Pairing, missing: int) -> str:
    """Completes pairs of which a half is missing or failed, then takes seeds that neither side has seen."""
    cells = [cell for cell in (pairing.cell, pairing.reference) if cell]
    known, lost = set(pairing.taken), set()
    complete, halves = [], set()
    for cell in cells:
        known |= {entry.seed for entry in cell.entries}
        halves |= {entry.seed for entry in pairing.runs(cell)}
        lost |= {entry.seed for entry in cell.having("diverged", "unsupported")}
        complete.append({entry.seed for entry in cell.having("complete")})
    halves = set() if pairing.chosen else halves - lost - set.intersection(*complete)
    seeds = [*sorted(halves), *islice(count(max(known) + 1), missing)][:missing]
    return again([cell.entries[0] for cell in cells], seed=seeds)
