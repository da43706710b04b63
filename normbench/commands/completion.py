"""Tab completion: scripts that ask `normbench -sc query=...`, which passes what follows `run` on to Hydra."""

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
