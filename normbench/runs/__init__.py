"""Runs on disk: one folder each, written so that a kill at any moment loses nothing that was finished.

`Run` is one folder, `Study` a folder of them as data frames. Neither torch nor Hydra is imported here: reports are
built from these files on machines that have neither.
"""

from normbench.runs.files import SCHEMA_VERSION, Damaged, Locked, Table, is_locked
from normbench.runs.merge import Merged, merge
from normbench.runs.read import EVERYTHING, FINISHED, SIZES, Run, damage, is_finished, last_step
from normbench.runs.study import Study, load, load_together
from normbench.runs.write import RunFolder, Unwritable, make_folder

__all__ = [
    "EVERYTHING",
    "FINISHED",
    "SCHEMA_VERSION",
    "SIZES",
    "Damaged",
    "Locked",
    "Merged",
    "Run",
    "RunFolder",
    "Study",
    "Table",
    "Unwritable",
    "damage",
    "is_finished",
    "is_locked",
    "last_step",
    "load",
    "load_together",
    "make_folder",
    "merge",
]
