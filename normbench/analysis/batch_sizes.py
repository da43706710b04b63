"""The smallest batch size at which a scheme is no worse than the reference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from normbench.analysis.comparisons import Comparison
from normbench.analysis.groups import Groups, without
from normbench.analysis.notes import interval_covers
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, number, row_start, setting_columns

USABLE = ("usable", "unusable", "inconclusive", "undecided")


def usable(comparison: Comparison, margin: float) -> str:
    """usable: the interval of the difference lies above -margin; unusable: below it, and the scheme is worse, as in the
    table of comparisons; inconclusive: neither.

    undecided: a best lr lies at the edge of those tried.
    A scheme that is unsupported, or diverged in every run, is unusable where the reference has a result.
    """
    if comparison["pair"].edges:
        return "undecided"
    low, high, ours, theirs = (comparison[key] for key in ("low", "high", "ours", "theirs"))
    if low is not None and low > -margin:
        return "usable"
    if high is not None and high < -margin and comparison["verdict"] == "worse":
        return "unusable"
    fails = ours.count("unsupported", "diverged") == len(ours.members)
    return "unusable" if fails and theirs.count("complete") else "inconclusive"


def smallest_batch_table(groups: Groups, found: Sequence[Comparison], reference: str, margin: float) -> Table:
    """From the comparisons of `compare_at_best_lr`, so that fewer updates at large batches count against nobody."""
    name, title = "smallest_batch", "Smallest usable batch size"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr", "batch_size"),
        Column("smallest_usable", "smallest usable", number("{:g}")),
        *(Column(word, word, numeric=False) for word in USABLE),
        REMARKS,
    ]
    if "batch_size" not in groups.varying:
        note = "All runs have the same batch size. Runs at several, such as batch_size=2,8,32 after run -m, supply it."
        return Table(name, title, "", columns, [], note)
    sizes: dict[Any, dict[int, str]] = {}
    for c in found:
        of_scheme = sizes.setdefault((without(c["setting"], "batch_size"), c["scheme"]), {})
        of_scheme[dict(c["setting"])["batch_size"]] = usable(c, margin)
    rows = [
        {k: v for k, v in row_start(groups, scheme, setting).items() if k != "batch_size"} | sizes_row(by_size)
        for (setting, scheme), by_size in sizes.items()
    ]
    caption = (
        f"From {sum(c['n'] for c in found)} pairs of runs, each scheme and {reference} at its own best lr "
        "for that batch size. "
        f"Usable: the 95% interval of the paired difference in test accuracy lies above -{100 * margin:g} "
        "points; unusable: it lies below, also after Holm's correction, or the scheme cannot be trained there; "
        "undecided: a best lr lies at the edge of those tried; otherwise inconclusive: more seeds would decide. "
        "Smallest usable: that size and all larger ones that were tried are usable. "
        f"Intervals cover {interval_covers(groups.members)}."
    )
    note = "" if rows else f"All runs are of {reference}. Runs of another scheme would supply it."
    return Table(name, title, caption if rows else "", columns, rows, note)


def sizes_row(sizes: dict[int, str]) -> dict[str, Any]:
    """ "Usable from 8 on" is said only where every size from 8 on is shown to be."""
    by_word = {word: sorted(s for s in sizes if sizes[s] == word) for word in USABLE}
    above = list(takewhile(lambda size: sizes[size] == "usable", sorted(sizes, reverse=True)))
    smallest = min(above, default=None)
    alone = [size for size in by_word["usable"] if size not in above]
    remarks = []
    if smallest is not None and smallest == min(sizes):
        remarks.append("the smallest tried: it may be usable below")
    if not by_word["usable"]:
        remarks.append("not shown usable at any size")
    if alone:
        gap = min(size for size in sizes if size > alone[-1] and sizes[size] != "usable")
        remarks.append(f"usable at {', '.join(map(str, alone))}, but {gap} is {sizes[gap]}")
    words: dict[str, Any] = {word: ", ".join(map(str, found)) for word, found in by_word.items()}
    return {"smallest_usable": smallest} | words | {"remarks": "; ".join(remarks)}
