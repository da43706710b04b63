"""The command line: a table of commands, each a module of `normbench.commands` that is imported when it is needed."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NoReturn

import normbench
from normbench.commands import console
from normbench.errors import Stopped, UserError

GROUPS = {
    "start": {
        "demo": "a first study, from MNIST to its report, in four minutes",
        "run": "train one network, or with -m a sweep",
        "report": "the report of a study: its tables and figures, in your browser",
        "export": "a study as Parquet, TensorBoard, LaTeX or JSON files",
        "diff": "what changed between two studies, with intervals",
        "list": "schemes, models, data sets and experiments, with their sources",
    },
    "learn": {
        "explain": "a scheme's calculation, step by step, on real images",
        "describe": "show the network that run would train, with the same words",
        "claims": "what textbooks claim, and what our runs say; --run them",
        "lesson": "a claim as a lab sheet: a notebook, a page, and the answer key",
        "merge": "the runs of a class in one study, and its intervals",
    },
    "check": {
        "doctor": "is this machine ready? versions, devices, data, room for results",
        "verify": "does every scheme, or norm=..., do what it is defined to, here?",
        "evaluate": "a trained network on the test set, with each kind of statistics",
        "fold": "a trained network without its norms: the same, and faster",
    },
    "plan big": {
        "plan": "what run -m would do, and for how long, with the same words",
        "status": "how a study is doing: works while a sweep runs",
        "data": "show, fetch or import data sets",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}
# take key=value words
WITH_WORDS = {"run", "demo", "plan", "describe", "explain", "claims", "evaluate", "verify", "doctor"}
SLOW = {*WITH_WORDS, "fold"} - {"claims"}  # import torch, which takes seconds

EXAMPLES = """\
examples:
  normbench run norm=batch batch_size=4
  normbench run -m norm=none,batch,layer batch_size=4,64 seed=0,1,2
  normbench run experiment=demo
  normbench report results/demo --open
  normbench explain norm=batch batch_size=4
  normbench claims --run small_batch_fails
  normbench evaluate results/scratch/RUN norm.statistics=precise
  normbench status --watch

exit codes: 0; 1 a run failed; 2 bad input; 130 interrupted. HYDRA_FULL_ERROR=1 raises an error as it is.
"""
LONGEST = 2000  # characters of an error


class Parser(argparse.ArgumentParser):
    """Raises UserError for words that it does not know, where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See {self.prog} --help.")

    def print_help(self, file: object = None) -> None:
        """Wrapped at words."""
        console.say(self.format_help().rstrip("\n"))


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0, 1 if a run failed or something broke, 2 for bad input, 130 if interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding lacks is a question mark
            stream.reconfigure(errors="replace")
    # Commands open no window, and the window system that a notebook names for its own processes need not exist here.
    os.environ.pop("MPLBACKEND", None)
    try:
        with _log_to_stderr():
            _require_working_folder()
            return _command(sys.argv[1:] if argv is None else argv)
    except (KeyboardInterrupt, Stopped):
        _complain("interrupted; repeat the command to continue")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit
        return 0
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            error = UserError(f"no file can have so long a name: {error.filename}.")
        if isinstance(error, UserError):
            _complain(f"error: {error}")
            return 2
        _complain(f"{type(error).__name__}: {str(error) or 'no message'} ({_where(error)})")
        return 1


def _complain(text: str) -> None:
    """One line on standard error."""
    line = " ".join(text.split())
    console.say(f"normbench: {line if len(line) <= LONGEST else line[:LONGEST] + ' ...'}", console.err)


def _where(error: Exception) -> str:
    """Where the traceback of an error is that nobody has foreseen: in a file that outlives us."""
    try:
        with NamedTemporaryFile("w", prefix="normbench-", suffix=".txt", encoding="utf-8", delete=False) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return "HYDRA_FULL_ERROR=1 shows where"
    return f"traceback: {file.name}"


def _command(words: list[str]) -> int:
    if words[:1] == ["-sc"]:
        from normbench.commands.list import complete

        return complete(words, COMMANDS, WITH_WORDS)
    if words and words[0] in COMMANDS:
        name = words[0]
        module = import_module(f"normbench.commands.{name}")
        parser = _parser(f"normbench {name}", COMMANDS[name])
        module.add_arguments(parser)
        options, rest = parser.parse_known_args(words[1:])
        if rest and name not in WITH_WORDS:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.words = rest
        if name in SLOW:
            console.announce(f"normbench {name}: reading the {'configuration' if name in WITH_WORDS else 'run'}")
        return module.run(options)
    about = "Which normalization should I use here, and why does it work? A bench that measures it."
    parser = _parser("normbench", about)
    lines = [
        f"{group}\n" + "".join(f"  {name:<10}{text}\n" for name, text in of.items()) for group, of in GROUPS.items()
    ]
    parser.usage = "normbench COMMAND [WORDS]"
    parser.epilog = "\n".join([*lines, "normbench COMMAND --help says more\n", EXAMPLES])
    parser.add_argument("--version", action="version", version=f"normbench {normbench.__version__}")
    parser.add_argument("--completion", choices=("bash", "zsh", "fish"), help="print a script for tab completion")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.command:
        parser.error(f"there is no command {options.command}")
    if options.completion:
        from normbench.commands.list import SCRIPTS

        print(SCRIPTS[options.completion], end="")
    else:
        parser.print_help()
    return 0


def _require_working_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the working folder was removed. Change to one that exists.") from error


def _parser(prog: str, about: str) -> Parser:
    raw = argparse.RawDescriptionHelpFormatter
    return Parser(prog=prog, description=about, formatter_class=raw, allow_abbrev=False)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    log, handler = logging.getLogger("normbench"), logging.Handler()
    handler.emit = lambda record: console.say(record.getMessage(), console.err)  # type: ignore[method-assign]
    before = log.handlers, log.propagate, log.level
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])


if __name__ == "__main__":
    sys.exit(main())
