"""`normbench data`: show, fetch or import data sets."""

from __future__ import annotations

import argparse

from normbench.commands import console
from normbench.commands.arguments import path
from normbench.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="fetch and verify this one; left out, show what is there")
    parser.add_argument("--from", dest="source", type=path, metavar="PATH", help="import it from a folder or archive")
    parser.add_argument("--data-dir", type=path, help="default: $NORMBENCH_DATA, or else the user's cache folder")


def run(options: argparse.Namespace) -> int:
    """Fetch or import the data set that is named, then list what is there. Returns 0. Raises UserError."""
    from normbench.data import PUBLISHED, default_data_dir, fetch, state_of

    name, source = options.name, options.source
    if source is not None and name is None:
        raise UserError("--from needs the name of the data set: normbench data cifar10 --from PATH")
    folder = options.data_dir or default_data_dir()
    try:
        if name is not None:
            fetch(name, folder, source)
        console.say(f"data sets in {folder}")
        for published in PUBLISHED.values():
            if name in (None, published.name):
                state, where = state_of(published, folder)
                files = [] if state == "not here" else [where] if where.is_file() else where.rglob("*")
                size = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
                images, size_text = sum(published.images), f"{size:,.0f} MiB" if size else ""
                console.say(f"  {published.name:<14} {state:<18} {images:>7,} images  {size_text:>9}  {where}")
                console.say(f"  {'':<14} {published.licence}")
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}. Choose another with --data-dir.") from error
    return 0
