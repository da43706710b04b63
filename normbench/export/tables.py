"""The tables of a study for other programs: Parquet files, or one JSON file."""

from __future__ import annotations

import io
import json as standard_json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from normbench.analysis.groups import show
from normbench.runs import SCHEMA_VERSION, Run, Study

if TYPE_CHECKING:
    import pandas as pd


def frames(study: Study) -> dict[str, pd.DataFrame]:
    """`runs` (a row per run with everything), `steps`, `epochs` and `measured/<instrument>`, where they have rows.

    Every row of a table says of which run it is, and with which scheme, varied settings and seed.
    """
    instruments = sorted({name for run in study.members.values() for name in run.instruments})
    found = {"runs": study.all_columns, "steps": study.steps, "epochs": study.epochs}
    found |= {f"measured/{name}": study.measured(name) for name in instruments}
    return {name: frame for name, frame in found.items() if len(frame)}


def parquet(study: Study) -> Iterator[tuple[str, bytes]]:
    """One file per table. An empty cell is null, as is NaN; infinities stay."""
    import pyarrow
    from pyarrow.parquet import write_table

    for name, frame in frames(study).items():
        columns = {column: _arrow(frame[column]) for column in frame}
        buffer = io.BytesIO()
        write_table(pyarrow.table(columns), buffer)
        yield f"{name}.parquet", buffer.getvalue()


def _arrow(values: pd.Series) -> Any:
    """A column of one type: where an option is a number in one run and a word in another, all are text."""
    import pyarrow

    try:
        return pyarrow.array(values, from_pandas=True)
    except (ValueError, TypeError, OverflowError):  # pyarrow's own errors are ValueErrors and TypeErrors
        texts = [None if value is None or value != value else show(value) for value in values]
        valid = [text and text.encode(errors="replace").decode() for text in texts]
        return pyarrow.array(valid, pyarrow.string())


def json(study: Study) -> Iterator[tuple[str, bytes]]:
    """One file, `study.json`:

        study, schema_version, varied   its name, the version of the runs' files, the settings that set runs apart
        runs        of each run: run, seed, status, reason, values (by option name), summary, and tables:
                    steps, epochs and measured/<instrument>, each {"columns": [...], "rows": [[...], ...]}
        unreadable  folders that are not read: name -> why

    JSON has no NaN and no infinities: NaN and empty cells are null, infinities are "Infinity" and "-Infinity".
    """
    found = {"study": study.folder.resolve().name, "schema_version": SCHEMA_VERSION, "varied": ["norm", *study.varied]}
    found |= {"runs": [_run(run) for run in study.members.values()], "unreadable": study.unreadable}
    yield "study.json", standard_json.dumps(found, allow_nan=False).encode()


def _run(run: Run) -> Any:
    names = ["steps", "epochs", *(f"measured/{name}" for name in run.instruments)]
    tables = {
        name: {"columns": list(table), "rows": list(zip(*(table[column].tolist() for column in table), strict=True))}
        for name in names
        if len(table := run.table(name))
    }
    about = {"run": run.name, "seed": run.seed, "status": run.status, "reason": run.reason}
    return _plain(about | {"values": run.values, "summary": run.summary, "tables": tables})


def _plain(value: Any) -> Any:
    """A value that JSON has: what it lacks, such as a date, is text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else str(value)
