"""`normbench verify`: does every scheme do what it is defined to do, on this machine and with this torch?"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from normbench.commands import console
from normbench.commands.list import options_help

if TYPE_CHECKING:
    from normbench.verify import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench verify [norm=NAME,... KEY=VALUE ...] [-v | --json]"
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each check")
    parser.add_argument("--json", action="store_true", help="for programs: every check")
    parser.epilog = options_help()


def run(options: argparse.Namespace) -> int:
    """Verify the schemes that the words name, all if none. Returns 1 if a check failed. Raises UserError."""
    import torch

    from normbench.config.options import choices
    from normbench.errors import ConfigError
    from normbench.experiment import build, expand
    from normbench.training.device import device_name
    from normbench.verify import verify

    words = [word for word in options.words if word not in ("-m", "--multirun")]
    if not any(re.match(r"\+*norm=", word) for word in words):
        words = [f"norm={','.join(choices('norm'))}", *words]
    found: dict[str, list[Result]] = {}
    for run_config in expand(["-m", *words]).run_configs:
        name = " ".join(word for word in run_config.words if word.startswith("norm"))
        if name in found:  # the words also list what no scheme knows, such as seeds
            continue
        config = run_config.config
        try:
            found[name] = verify(build(config).scheme, config["norm"], config["device"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name}: {error}") from error
    device, version = device_name(config["device"]), torch.__version__
    failed = any(result.passed is False for results in found.values() for result in results)
    if options.json:
        schemes = {name: [asdict(result) for result in results] for name, results in found.items()}
        about = {"torch": version, "device": device, "passed": not failed}
        print(json.dumps({**about, "schemes": schemes}, indent=1))
    else:
        _print(found, f"torch {version} on {device}", options.verbose)
    return int(failed)


def _print(found: dict[str, list[Result]], place: str, verbose: bool) -> None:
    """A line for each scheme, with `verbose` for each check; what failed; and how many passed."""
    judged = {name: [r for r in results if r.passed is not None] for name, results in found.items()}
    wrong = {name: [r for r in results if not r.passed] for name, results in judged.items()}
    for name, results in found.items() if verbose else ():
        rows = [
            (r.check, r.place, _word(r.passed), "" if r.error is None else f"{r.error:.0e}", r.note) for r in results
        ]
        console.print_table((name, "layer", "", "largest error", "what was seen"), rows, right=())
    if not verbose:
        lines = [(name, f"{len(of) - len(wrong[name])} of {len(of)} checks passed") for name, of in judged.items()]
        console.print_table(("scheme", ""), lines, right=())
    for name, results in wrong.items():
        for r in results:
            error = "" if r.error is None else f" (error {r.error:.1e})"
            console.say(f"FAILED {name}, {r.place}, {r.check}: {r.note}{error}")
    every, failed = (sum(map(len, of.values())) for of in (judged, wrong))
    console.say(f"{place}: {every - failed} of {every} checks passed")


def _word(passed: bool | None) -> str:
    return "-" if passed is None else "pass" if passed else "FAIL"
