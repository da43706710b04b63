"""What there is to choose from: `normbench list`, the help of `normbench run`, and tab completion, whose scripts ask
`normbench -sc query=...` with the line so far in COMP_LINE."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection

from normbench.commands import console
from normbench.config.options import GROUPS, choices, config_dir
from normbench.config.options import complete as endings

EXAMPLES = """\
examples:
  normbench run norm=batch batch_size=4
  normbench run -m norm=none,batch,layer optimizer=sgd lr=0.01,0.1 seed=0,1,2
  normbench run experiment=demo"""
_BASH = """\
_normbench() {
    local line="${COMP_LINE:0:$COMP_POINT}"
    local word="${line##* }"
    local found="$(COMP_LINE="$line" normbench -sc query=bash 2>/dev/null)"
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    # readline breaks words at "=": it wants only what comes after
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
    fi
}
complete -o nospace -o default -F _normbench normbench
"""

_FISH = """\
function __normbench
    set -lx COMP_LINE (commandline -cp)
    normbench -sc query=fish 2>/dev/null | string split " "
end
complete -c normbench -x -a "(__normbench)"
"""

SCRIPTS = {"bash": _BASH, "zsh": "autoload -Uz bashcompinit && bashcompinit\n" + _BASH, "fish": _FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", nargs="?", choices=GROUPS, help="this one, with whole descriptions; left out, all")


def run(options: argparse.Namespace) -> int:
    """List the options of every group, one a line, or of the group that is named, with their whole descriptions."""
    for group in GROUPS if options.group is None else [options.group]:
        found = choices(group)
        width = max(map(len, found))
        console.say(GROUPS[group])
        for name, text in found.items():
            (console.say if options.group else console.say_cut)(f"  {group}={name:<{width}}  {text}")
    return 0


def options_help() -> str:
    """For the help of commands that take the words of `normbench run`: groups, options with their defaults, flags."""
    groups = "\n".join(f"  {f'{group}=':<12}  {', '.join(choices(group))}" for group in GROUPS)
    text = (config_dir() / "config.yaml").read_text(encoding="utf-8")
    options = text[text.index("# training") : text.index("\nhydra:")].rstrip()
    indented = "\n".join(f"  {line}" if line else "" for line in options.splitlines())
    return f"""\
groups
{groups}

they are described by: normbench list norm
all options of one: normbench run norm=batch --cfg job

options, with their defaults
{indented}

a group's own options are written with its name: norm.eps=1e-3 model.hidden=[300,300] dataset.train_fraction=0.1

also: --cfg job shows the configuration; --config-dir DIR adds your own; a key may come from a file of experiments

{EXAMPLES}"""


def complete(words: list[str], commands: Collection[str], with_words: Collection[str]) -> int:
    """Print what the line may go on with: a command, or behind one of `with_words` an option."""
    line = os.environ.get("COMP_LINE", "")
    before = line.split() if line.endswith(" ") else line.split()[:-1]
    if len(before) <= 1:
        print(" ".join(commands))
    elif before[1] in with_words:
        print("\n".join(endings(line)))
    return 0
