"""`corral completion bash|zsh|fish`: the shell's own function that asks us after each Tab."""

from __future__ import annotations

from orchestrator.cli import words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation

BASH = r"""# corral's completion for bash: source <(corral completion bash)
_corral() {
    local IFS=$'\n'
    COMPREPLY=($(corral __complete bash "${COMP_LINE:0:COMP_POINT}" \
        "${COMP_WORDS[COMP_CWORD]#[=:]}" 2>/dev/null))
    if [[ ${COMPREPLY[0]} == :files ]]; then
        COMPREPLY=()
        compopt -o default
    elif [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}
complete -F _corral corral
"""

ZSH = r"""#compdef corral
# corral's completion for zsh: source <(corral completion zsh), or a file _corral in $fpath
_corral() {
    local -a lines found
    local line word
    lines=("${(@f)$(corral __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $lines[1] == :files ]]; then
        _files
        return
    fi
    for line in $lines; do
        word=${${line%%$'\t'*}//:/\\:}
        if [[ $line == *$'\t'* ]]; then found+=("$word:${line#*$'\t'}"); else found+=("$word"); fi
    done
    _describe -V corral found
}
compdef _corral corral
"""

FISH = r"""# corral's completion for fish: corral completion fish | source
function __corral_complete
    set -l found (corral __complete fish (commandline -opc)[2..] (commandline -ct) 2>/dev/null)
    if test "$found[1]" = :files
        __fish_complete_path (commandline -ct)
    else if test (count $found) -gt 0
        printf '%s\n' $found
    end
end
complete -c corral -f -a '(__corral_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="for bash: source <(corral ...)")


def run(args: argparse.Namespace, session: Invocation) -> int:  # noqa: ARG001 - all have it
    words.table()  # so that the first Tab is as quick as the others
    print(SCRIPTS[args.shell], end="")
    return 0
