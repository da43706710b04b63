"""`normbench list`, and the help of `normbench run`: what there is to choose from."""

from __future__ import annotations

import argparse

from normbench.config.options import GROUPS, choices, config_dir

EXAMPLES = """\
examples:
  normbench run norm=batch batch_size=4
  normbench run -m norm=none,batch,layer optimizer=sgd lr=0.01,0.1 seed=0,1,2
  normbench run experiment=demo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: everything is listed."""


def run(options: argparse.Namespace) -> int:
    """List every group's options, with their one-line descriptions."""
    parts = []
    for group, title in GROUPS.items():
        lines = [f"  {group}={name:<18} {text}" for name, text in choices(group).items()]
        parts.append("\n".join([title, *lines]))
    print("\n\n".join(parts))
    return 0


def options_help() -> str:
    """For the help of commands that take the words of `normbench run`: groups, options with their defaults, flags."""
    groups = "\n".join(f"  {group}={'|'.join(choices(group))}" for group in GROUPS)
    text = (config_dir() / "config.yaml").read_text(encoding="utf-8")
    options = text[text.index("# training") : text.index("\nhydra:")].rstrip()
    indented = "\n".join(f"  {line}" if line else "" for line in options.splitlines())
    return f"""\
groups (normbench list describes them; normbench run norm=batch --cfg job shows all their options)
{groups}

options, with their defaults
{indented}

a group's own options are written with its name: norm.eps=1e-3 model.hidden=[300,300] dataset.train_fraction=0.1

also: --cfg job shows the configuration; --config-dir DIR adds your own; a key may come from a file of experiments

{EXAMPLES}"""
