"""Runs on disk: one folder each, written so that a kill at any moment loses nothing that was finished.

`Run` is one folder, `Study` a folder of them as data frames. Neither torch nor Hydra is imported here: reports are
built from these files on machines that have neither.
"""

from normbench.files import write_atomically
from normbench.runs.files import Damaged, Table
from normbench.runs.read import FINISHED, Run, Unreadable, is_finished, last_step
from normbench.runs.study import Study, load
from normbench.runs.write import SCHEMA_VERSION, Locked, RunFolder, Unwritable, make_folder

__all__ = [
    "FINISHED",
    "SCHEMA_VERSION",
    "Damaged",
    "Locked",
    "Run",
    "RunFolder",
    "Study",
    "Table",
    "Unreadable",
    "Unwritable",
    "is_finished",
    "last_step",
    "load",
    "make_folder",
    "write_atomically",
]
