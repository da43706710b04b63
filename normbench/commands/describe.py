"""`normbench describe`: the network that `normbench run` would train with the same words."""

from __future__ import annotations

import argparse

from normbench.commands import console
from normbench.commands.list import options_help


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "normbench describe [KEY=VALUE ...]"
    parser.epilog = options_help()


def run(options: argparse.Namespace) -> int:
    """Print the blocks of each network that the words stand for. Writes nothing. Returns 0. Raises ConfigError."""
    from normbench.experiment import expand, prepare_run
    from normbench.norms.describe import describe, facts

    prepared = [prepare_run(run_config) for run_config in expand(options.words).run_configs]  # or one error, alone
    for ready in prepared:
        config, data = ready.run_config.config, ready.dataset
        model = ready.parts.model(ready.parts.scheme, data.shape, len(data.classes))
        console.say(console.title(ready.run_config.choices))
        columns = ("block", "weights", "output", "parameters", "norm", "normalised over")
        layers = describe(model, data.shape, config["batch_size"])
        rows = [(la.name, la.linear, la.shape, f"{la.parameters:,}", la.norm, la.over) for la in layers]
        console.print_table(columns, rows, right=("parameters",))
        console.say(facts(model, config))
    return 0
