"""What the instruments measured: each table read once, with clean numbers."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from normbench.runs import Run

if TYPE_CHECKING:
    import pandas as pd


def rows(run: Run, name: str, *numbers: str) -> pd.DataFrame:
    """The table of an instrument (or `steps`, `epochs`) with the columns `numbers` as finite numbers or NaN.

    Empty, but with these columns, where the file or one of them is missing or damaged. It is read once and shared:
    don't change it.
    """
    import pandas as pd

    if (cleaned := run.tables.get(key := " ".join((name, *numbers)))) is not None:
        return cleaned
    if name not in run.tables:
        try:
            run.tables[name] = run.table(name if name in ("steps", "epochs") else f"measured/{name}")
        except (OSError, ValueError):  # pandas' own errors on unreadable text are ValueErrors
            run.tables[name] = pd.DataFrame()
    table = run.tables[name]
    if not set(numbers) <= set(table.columns):
        return _without_rows(numbers)
    clean = {}
    for column in numbers:
        values = table[column].to_numpy()
        if values.dtype.kind not in "fi" or not np.isfinite(values).all():  # most are: spare them the copy
            known = pd.to_numeric(table[column], errors="coerce")
            clean[column] = known.where(np.isfinite(known))
    table = table.assign(**clean) if clean else table
    run.tables[key] = table[table.step.notna()] if "step" in clean else table
    return run.tables[key]


@cache
def _without_rows(numbers: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=list(dict.fromkeys(("step", "layer", "tensor", *numbers))))
