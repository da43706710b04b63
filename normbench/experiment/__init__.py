"""A `RunConfig` becomes a finished run folder: the one place that knows data, training, instruments and files.

parts    the objects that a configuration names, and its images
prepare  is it possible, and does it fit?
run      a run in training
execute  runs to their end, alone or in a stack
"""

from normbench.experiment.parts import (
    Parts,
    build,
    check_data,
    compose,
    expand,
    load_dataset,
    load_source,
    require_same_data,
)
from normbench.experiment.prepare import Prepared, check_supported, new_model, prepare_run
from normbench.experiment.run import at_chance, batches, finite, record, set_up_torch
from normbench.experiment.runs import (
    execute,
    execute_stacked,
    forget,
    prepare_unfinished,
    record_failure,
    record_unsupported,
    train,
)

__all__ = [
    "Parts",
    "Prepared",
    "at_chance",
    "batches",
    "build",
    "check_data",
    "check_supported",
    "compose",
    "execute",
    "execute_stacked",
    "expand",
    "finite",
    "forget",
    "load_dataset",
    "load_source",
    "new_model",
    "prepare_run",
    "prepare_unfinished",
    "record",
    "record_failure",
    "record_unsupported",
    "require_same_data",
    "set_up_torch",
    "train",
]
