"""Tab completion: scripts that ask `normbench -sc query=...` with the line so far in COMP_LINE."""

from __future__ import annotations

import os
from collections.abc import Collection

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


def complete(words: list[str], commands: Collection[str], with_words: Collection[str]) -> int:
    """Print what the line may go on with: a command, or behind one of `with_words` an option."""
    line = os.environ.get("COMP_LINE", "")
    before = line.split() if line.endswith(" ") else line.split()[:-1]
    if len(before) <= 1:
        print(" ".join(commands))
    elif before[1] in with_words:
        from normbench.config.options import complete as options

        print("\n".join(options(line)))
    return 0
