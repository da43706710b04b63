"""normbench: which normalization should I use here, and why does it work?

import normbench
run = normbench.run(norm="batch", batch_size=4)                   # `normbench run norm=batch batch_size=4`
study = normbench.sweep(norm=["none", "batch"], seed=range(3))    # `normbench run -m norm=none,batch seed=0,1,2`
study = normbench.load("results/scratch")
study.runs, study.measured("shift"), study.compare(), study.plot("shift"), study.explorer(), study.report()
normbench.explain(norm="batch", batch_size=4)
"""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING, Any

from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.api import Run, Study, explain, load, run, sweep

__version__ = "0.1.0"
__all__ = ["Run", "Study", "UserError", "explain", "load", "run", "sweep"]

# Two packages have the names of functions. The first import of a package puts it here, and no other: so it is done, and
# the names are free.
for _package in ("explain", "sweep"):
    import_module(f"normbench.{_package}")
    globals().pop(_package, None)


def __getattr__(name: str) -> Any:
    """What `api` has, imported when it is asked for: importing normbench takes no time."""
    if name not in __all__:
        raise AttributeError(f"module normbench has no attribute {name}")
    state = random.getstate()  # rich draws a number when it is imported
    try:
        return getattr(import_module("normbench.api"), name)
    finally:
        random.setstate(state)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
