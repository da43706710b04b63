"""What tables share: how numbers are shown, and the columns that say which setting a row is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from normbench.analysis.groups import Cell, Cells, Setting, show, without
from normbench.analysis.table import Column

__all__ = ["without"]
SCHEME = Column("scheme", "scheme", numeric=False)
REMARKS = Column("remarks", "remarks", str, numeric=False)
COMMAND = Column("command", "to settle it", str, numeric=False)


def number(pattern: str, factor: float = 1) -> Callable[[Any], str]:
    """A `show` for numbers: number("{:+.2f}", 100)(0.005) -> "+0.50"; a dash for None."""
    return lambda value: "–" if value is None else pattern.format(factor * value)


percent, points = number("{:.2f}", 100), number("{:+.2f}", 100)


def probability(value: float | None, equals: str = "") -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"


def without_result(cell: Cell) -> list[str]:
    """What became of the runs that did not complete: ["1 diverged", "2 failed"]."""
    statuses = ("diverged", "unsupported", "failed", "running", "interrupted")
    return [f"{n} {status}" for status in statuses if (n := len(cell.having(status)))]


def where(cells: Cells, scheme: str, setting: Setting) -> dict[str, Any]:
    """The start of a row: what the page filters by, then everything that varies."""
    known = {key: value for key, value in cells.constant.items() if key in ("model", "batch_size")}
    return {"scheme": scheme} | known | dict(setting)


def setting_columns(cells: Cells, *left_out: str) -> list[Column]:
    """A column for each setting that varies, headed as a person would say it."""
    return [
        Column(
            key,
            key.rpartition(".")[2].replace("_", " "),
            _setting,
            numeric=_numeric(dict(setting).get(key) for setting in cells.settings),
        )
        for key in cells.varying
        if key not in left_out
    ]


def _numeric(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _setting(value: Any) -> str:
    return "–" if value is None else show(value)
