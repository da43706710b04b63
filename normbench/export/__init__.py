"""A study in the formats of other programs: files in memory from its runs, which a command writes. Never imports torch.

Runs are read through `normbench.runs` alone. The same runs give the same bytes, with one version of the package that
writes a format.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from normbench.errors import UserError

if TYPE_CHECKING:
    from normbench.runs import Study

FORMATS = {  # format -> the module that writes it, and the package that it needs
    "parquet": ("tables", "pyarrow"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "latex": ("latex", ""),
    "json": ("tables", ""),
}


def files(study: Study, to: str) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each file. Raises UserError where the package that a format needs is missing."""
    module, package = FORMATS[to]
    if package:
        try:
            import_module(package)
        except ImportError as error:
            raise UserError(f'--to {to} needs {package} ({error}). Type: pip install "normbench[{to}]"') from error
    return getattr(import_module(f"normbench.export.{module}"), to)(study)
