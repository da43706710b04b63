"""normbench: which normalization should I use here, and why does it work?

import normbench
run = normbench.run(["norm=batch", "batch_size=4"])      # what `normbench run norm=batch batch_size=4` does
study = normbench.load("results/scratch")                # study.runs, .steps, .epochs, .measured("shift"): data frames
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.runs import Run, Study

__version__ = "0.1.0"
__all__ = ["UserError", "load", "run"]


def run(words: Iterable[str] = (), on_progress: Callable[..., None] = lambda progress: None) -> Run:
    """Train one configuration, continue it, or find it finished: `normbench run WORDS`.

    Args:
        words: as on the command line, such as ["norm=batch", "batch_size=4"].
        on_progress: called with a `Progress` whenever the loss has been read.

    Torch's random state, number of threads and settings of TF32 and cuDNN are afterwards what they were; of several
    threads that call it, one trains at a time.

    Raises: UserError, of which ConfigError and Unsupported say that nothing was written; or whatever went wrong in
        training.
    """
    from normbench.experiment import compose, execute
    from normbench.training.device import own_state

    with own_state():
        return execute(compose(words), on_progress)


def load(folder: str | Path) -> Study:
    """Open a study, `results/<study>`, as data frames. Raises FileNotFoundError where there are no runs."""
    from normbench.runs import load

    return load(folder)
