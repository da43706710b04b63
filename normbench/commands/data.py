"""`normbench data`: show, fetch or import data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from normbench.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="fetch and verify this one; left out, show what is there")
    parser.add_argument("--from", dest="source", type=Path, metavar="PATH", help="import it from a folder or archive")
    parser.add_argument("--data-dir", type=Path, help="default: $NORMBENCH_DATA, or else the user's cache folder")


def run(options: argparse.Namespace) -> int:
    """Fetch or import the data set that is named, then list what is there. Returns 0. Raises UserError."""
    from normbench.data import DataError, default_data_dir, describe, fetch

    name, source = options.name, options.source
    if source is not None and name is None:
        raise UserError("--from needs the name of the data set: normbench data cifar10 --from PATH")
    folder = options.data_dir or default_data_dir()
    try:
        if name is not None:
            fetch(name, folder, source)
        rows = describe(folder)
    except DataError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}. Choose another with --data-dir.") from error
    print(f"data sets in {folder}")
    for row in rows:
        if name in (None, row.name):
            size = f"{row.bytes / 2**20:,.0f} MiB" if row.bytes else ""
            print(f"  {row.name:<14} {row.state:<18} {row.images:>7,} images  {size:>9}  {row.where}")
            print(f"  {'':<14} {row.licence}")
    return 0
