"""The four verdicts: how they look, and how they follow from an interval."""

from __future__ import annotations

from collections.abc import Collection, Sequence

SUPPORTED, CONTRADICTED, MIXED, INCONCLUSIVE = "supported", "contradicted", "mixed", "inconclusive"
# Okabe and Ito's colours, distinct under every common colour blindness; the marks say the same without them.
LOOKS = {SUPPORTED: ("✓", "#0072B2"), CONTRADICTED: ("✗", "#D55E00"), MIXED: ("±", "#CC79A7")}
LOOKS |= {INCONCLUSIVE: ("?", "#7F7F7F")}


def verdict(expect: str, limits: Sequence[float], low: float, high: float) -> str:
    """What an interval of effects says of what is expected; an end may be infinite.

    higher: supported if all of it is at or above the margin, contradicted if all is below; lower: the mirror image;
    equal: supported if all is within the margin, contradicted if all is beyond it on one side. Otherwise inconclusive.
    """
    low, high = round(low, 12), round(high, 12)  # 0.945 - 0.94 is less than 0.005
    first, last = round(limits[0], 12), round(limits[-1], 12)
    if expect == "higher":
        return SUPPORTED if low >= first else CONTRADICTED if high < first else INCONCLUSIVE
    if expect == "lower":
        return SUPPORTED if high <= first else CONTRADICTED if low > first else INCONCLUSIVE
    if first <= low and high <= last:
        return SUPPORTED
    return CONTRADICTED if low > last or high < first else INCONCLUSIVE


def combined(verdicts: Collection[str]) -> str:
    """The verdict on a statement that needs all of its checks."""
    found = set(verdicts)
    if {SUPPORTED, CONTRADICTED} <= found:
        return MIXED
    return found.pop() if len(found) == 1 else INCONCLUSIVE
