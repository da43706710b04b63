"""From which batch size on a scheme can be used: where it is not shown to lose more than the margin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from normbench.analysis.comparisons import Versus
from normbench.analysis.groups import Groups, Setting, without
from normbench.analysis.tables import REMARKS, SCHEME, Column, Table, number, row_start, setting_columns

WORDS = ("usable", "unusable", "inconclusive")


def usable(versus: Versus, margin: float) -> str:
    """usable: the interval of the difference lies above -margin; unusable: below; inconclusive: -margin is inside.

    A scheme that is unsupported, or diverged in every run, is unusable where the reference has a result.
    """
    low, high, pairing = versus.result.low, versus.result.high, versus.pairing
    if low is not None and low > -margin:
        return "usable"
    if high is not None and high < -margin:
        return "unusable"
    fails = pairing.group.count("unsupported", "diverged") == len(pairing.group.members)
    return "unusable" if fails and pairing.reference.count("complete") else "inconclusive"


def smallest_batch_table(groups: Groups, found: Sequence[Versus], reference: str, margin: float) -> Table:
    """From the comparisons of `compare_at_best_lr`, so that fewer updates at large batches count against nobody."""
    name, title = "smallest_batch", "Smallest usable batch size"
    columns = [
        SCHEME,
        *setting_columns(groups, "lr", "batch_size"),
        Column("smallest_usable", "smallest usable", number("{:g}")),
        *(Column(word, word, numeric=False) for word in WORDS),
        REMARKS,
    ]
    if "batch_size" not in groups.varying:
        note = "All runs have the same batch size. Runs at several, such as batch_size=2,8,32 after run -m, supply it."
        return Table(name, title, "", columns, [], note)
    by_size: dict[tuple[Setting, str], dict[int, str]] = defaultdict(dict)
    for v in found:
        key = without(v.pairing.setting, "batch_size"), v.pairing.scheme
        by_size[key][dict(v.pairing.setting)["batch_size"]] = usable(v, margin)
    rows = [
        {k: v for k, v in row_start(groups, scheme, setting).items() if k != "batch_size"} | _row(sizes)
        for (setting, scheme), sizes in by_size.items()
    ]
    caption = (
        f"From {sum(v.result.n for v in found)} pairs of runs, each scheme and {reference} at its own best lr for that "
        f"batch size. Usable: the 95% interval of the paired difference in test accuracy lies above -{100 * margin:g} "
        "points; unusable: below it, or the scheme cannot be trained there; otherwise inconclusive: more seeds would "
        "tell. Smallest usable: the smallest above all that are unusable. New seeds on this test set, not new images."
    )
    note = "" if rows else f"All runs are of {reference}. Runs of another scheme would supply it."
    return Table(name, title, caption if rows else "", columns, rows, note)


def _row(sizes: dict[int, str]) -> dict[str, Any]:
    by_word = {word: sorted(s for s in sizes if sizes[s] == word) for word in WORDS}
    largest_unusable = max(by_word["unusable"], default=None)
    smallest = min((s for s in by_word["usable"] if s > (largest_unusable or 0)), default=None)
    remarks = []
    if smallest is not None and smallest == min(sizes):
        remarks.append("the smallest tried: it may be usable below")
    if smallest is None:
        remarks.append("not shown usable at any size" + (" above" if by_word["usable"] else ""))
    if smallest is not None and any((largest_unusable or 0) < s < smallest for s in by_word["inconclusive"]):
        remarks.append("smaller sizes are inconclusive")
    words: dict[str, Any] = {word: ", ".join(map(str, found)) for word, found in by_word.items()}
    return {"smallest_usable": smallest, "largest_unusable": largest_unusable} | words | {"remarks": "; ".join(remarks)}
