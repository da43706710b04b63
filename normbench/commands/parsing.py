"""Words of the commands that read their own."""

from __future__ import annotations

import argparse
from typing import NoReturn

from normbench.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError for words that it does not know, where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See {self.prog} --help.")
