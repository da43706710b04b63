"""The command line. Nothing heavy is imported before it is needed: help and completion answer at once."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from normbench.commands.claims import add_options as add_claims_options
from normbench.commands.fold import add_options as add_fold_options
from normbench.commands.report import add_options as add_report_options

COMMANDS = (
    "run",
    "plan",
    "status",
    "describe",
    "explain",
    "list",
    "report",
    "claims",
    "evaluate",
    "fold",
    "verify",
    "data",
)
WITH_OPTIONS = ("run", "plan", "describe", "explain", "evaluate", "verify")  # key=value words, read by Hydra

EXAMPLES = """\
examples:
  normbench run norm=batch batch_size=4                                   train one network
  normbench run -m norm=none,batch,layer batch_size=4,64 seed=0,1,2       sweep: every combination
  normbench run -m norm=none,batch,layer optimizer=sgd lr=0.01,0.1
  normbench run experiment=demo                                           a study from a file
  normbench plan norm=none,batch seed=0,1,2                               what a sweep would do, and for how long
  normbench status --watch                                                how it is doing, from another terminal
  normbench report results/demo --open                                    its tables and figures, in your browser
  normbench evaluate results/scratch/RUN norm.statistics=precise          a trained network with other statistics
  normbench claims --run small_batch_fails                                what a textbook says, and what our runs do
  normbench fold results/scratch/RUN                                      a trained network without its norms
  normbench verify norm=batch                                             does it do what it is defined to, here?
  normbench data mnist                                                    fetch a data set
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns 0, 1 if a run failed, 2 for bad input, 130 if interrupted."""
    words = sys.argv[1:] if argv is None else argv
    debug = os.environ.get("HYDRA_FULL_ERROR") == "1"
    from normbench.errors import UserError

    try:
        return _command(words)
    except UserError as error:
        if debug:
            raise
        print(f"normbench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("normbench: interrupted; repeat the command to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit
        return 0


def _command(words: list[str]) -> int:
    _log_to_stderr()
    if words and words[0] in WITH_OPTIONS:
        return _with_options(words[0], words[1:])
    if words[:1] == ["-sc"]:
        return _complete(words)
    cut = words.index("--") if words[:1] == ["claims"] and "--" in words else len(words)
    options = _parser().parse_args(words[:cut] or ["--help"])
    if options.completion:
        from normbench.commands.completion import SCRIPTS

        print(SCRIPTS[options.completion], end="")
        return 0
    if options.command == "list":
        from normbench.commands.list import listing

        print(listing())
        return 0
    if options.command == "status":
        return _status(options.study, options.watch)
    if options.command == "report":
        from normbench.commands import report as report_command

        return report_command.run(options, _study(options.study))
    if options.command == "claims":
        from normbench.commands import claims as claims_command

        return claims_command.run(options, words[cut + 1 :])
    if options.command == "fold":
        from normbench.commands import fold as fold_command

        return fold_command.run(options)
    if options.command == "data":
        return _data(options.name, options.source, options.data_dir)
    _parser().print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="normbench",
        description="Which normalization should I use here, and why does it work? A bench that measures it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    parser.add_argument("--completion", choices=("bash", "zsh", "fish"), help="print a script for tab completion")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="train one network, or with -m a sweep (see normbench run --help)", add_help=False)
    commands.add_parser("plan", help="what run -m would do, and how long it would take, with the same words; --json",
                        add_help=False)  # fmt: skip
    status = commands.add_parser("status", help="how a study is doing: works while a sweep runs")
    status.add_argument("study", nargs="?", type=Path, help="results/<study>; left out, the one changed last")
    status.add_argument("--watch", action="store_true", help="again and again, until nothing runs (or Ctrl-C)")
    commands.add_parser("describe", help="show the network that run would train, with the same words", add_help=False)
    commands.add_parser("explain", help="a scheme's calculation, step by step, on real images", add_help=False)
    commands.add_parser("list", help="schemes, models, data sets and experiments, with their sources")
    add_report_options(commands.add_parser("report", help="build the report of a study"))
    commands.add_parser("evaluate", help="a trained network on the test set, with each kind of statistics",
                        add_help=False)  # fmt: skip
    add_claims_options(commands.add_parser("claims", help="what textbooks claim, and what our runs say; --run them"))
    add_fold_options(commands.add_parser("fold", help="a trained network without its norms: the same, and faster"))
    commands.add_parser("verify", help="does every scheme, or norm=..., do what it is defined to, here? --json",
                        add_help=False)  # fmt: skip
    data = commands.add_parser("data", help="show, fetch or import data sets")
    data.add_argument("name", nargs="?", help="fetch and verify this one; left out, show what is there")
    data.add_argument("--from", dest="source", type=Path, metavar="PATH", help="import it from a folder or archive")
    data.add_argument("--data-dir", type=Path, help="default: $NORMBENCH_DATA, or else the user's cache folder")
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        import normbench

        print(f"normbench {normbench.__version__}")
        parser.exit()


def _with_options(command: str, words: list[str]) -> int:
    if command == "explain":
        from normbench.commands.explain import main

        return main(words)
    if command == "evaluate":
        from normbench.commands import evaluate as evaluate_command

        return evaluate_command.main(words)
    if {"-h", "--help"} & set(words):
        from normbench.commands.list import run_help

        print(run_help())
        return 0
    if command == "verify":
        from normbench.commands import verify as verify_command

        return verify_command.run(words)
    from normbench.commands import run as commands

    if command == "plan":
        rest = [word for word in words if word != "--json"]
        return commands.plan(rest, as_json="--json" in words)
    return commands.run(words) if command == "run" else commands.describe(words)


def _study(folder: Path | None) -> Path:
    """`folder`, or the study that was changed last."""
    if folder is not None:
        return folder
    from normbench.errors import UserError

    studies = {path.parent.parent for path in Path("results").glob("*/*/config.yaml")}
    if not studies:
        raise UserError("there are no studies in results/. Make one: normbench run experiment=demo")
    return max(studies, key=lambda study: study.stat().st_mtime)


def _status(folder: Path | None, watch: bool) -> int:
    from normbench.commands.status import show
    from normbench.errors import UserError

    try:
        return show(_study(folder), watch)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def _data(name: str | None, source: Path | None, data_dir: Path | None) -> int:
    from normbench.commands.list import data_listing
    from normbench.data import DataError, default_data_dir
    from normbench.errors import UserError

    if source is not None and name is None:
        raise UserError("--from needs the name of the data set: normbench data cifar10 --from PATH")
    folder = data_dir or default_data_dir()
    try:
        print(data_listing(folder, name, source))
    except DataError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}. Choose another with --data-dir.") from error
    return 0


def _complete(words: list[str]) -> int:
    """Called by the shell's completion script, with the line so far in COMP_LINE."""
    line = os.environ.get("COMP_LINE", "")
    before = line.split() if line.endswith(" ") else line.split()[:-1]
    if len(before) <= 1:
        print(" ".join(COMMANDS))
        return 0
    if before[1] not in WITH_OPTIONS:
        return 0
    from normbench.config.app import complete

    return complete(words)


def _log_to_stderr() -> None:
    log = logging.getLogger("normbench")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


if __name__ == "__main__":
    sys.exit(main())
