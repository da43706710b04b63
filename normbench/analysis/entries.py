"""What the figures still read a run by; they get `Run` itself once all of them say `values` and `summary`."""

from __future__ import annotations

from typing import Any

from normbench.runs import Run


class Entry(Run):
    """A run with the names of before: `settings` are its values, `run` itself, `scheme` that of its group."""

    scheme: str
    settings: dict[str, Any]

    @property
    def run(self) -> Run:
        return self


def as_entry(run: Run, scheme: str, settings: dict[str, Any]) -> Entry:
    entry = Entry(run.folder)
    entry.__dict__.update(run.__dict__, scheme=scheme, settings=settings)
    return entry
