# SPDX-License-Identifier: Apache-2.0
"""
cnihook completion: scripts that complete commands, options and their values in a shell.

The scripts ask this command again at each Tab, so that all shells offer the same.  It takes 60 ms.
"""

import os
import shlex
import sys

from cnihook.cli.shared import candidates
from cnihook.cli.shared.arguments import Parser
from cnihook.fast.errors_text import printable

DESCRIPTION = """\
Print the script by which a shell completes the command lines of `cnihook`, priv-net-run and docker-run:
commands, options, containers by their names, networks, pages, plugins.

  in ~/.bashrc                     eval "$(cnihook completion bash)"
  in ~/.zshrc, after compinit      eval "$(cnihook completion zsh)"
  in ~/.config/fish/config.fish    cnihook completion fish | source
"""

_BASH = """\
_cnihook() {{
  mapfile -t COMPREPLY < <(
    {program} completion --complete "$1" "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2> /dev/null
  )
  if [[ ${{COMPREPLY[*]}} == {files} ]]; then
    COMPREPLY=()
    compopt -o default 2> /dev/null
  fi
  COMPREPLY=("${{COMPREPLY[@]%%$'\\t'*}}")
}}
complete -F _cnihook {programs}
"""

_ZSH = """\
_cnihook() {{
  local line word
  local -a lines offered
  lines=("${{(@f)$({program} completion --complete "${{(@Q)words[1,CURRENT]}}" 2> /dev/null)}}")
  if [[ $lines[1] == {files} ]]; then
    [[ $PREFIX == --*=* ]] && compset -P '*='
    _files
    return
  fi
  for line in $lines; do
    word=${{line%%$'\\t'*}}
    offered+=("${{word//:/\\\\:}}:${{${{line#$word}}#$'\\t'}}")
  done
  _describe -V candidate offered
}}
compdef _cnihook {programs}
"""

_FISH = """\
function __cnihook
    set -l current (commandline -ct)
    test -n "$current"; or set current ""
    set -l lines ({program} completion --complete (commandline -opc) $current 2> /dev/null)
    if test "$lines" = {files}
        __fish_complete_path "$current"
    else
        printf '%s\\n' $lines
    end
end
for program in {programs}
    complete -c $program -f -a '(__cnihook)'
end
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def parser() -> Parser:
    parser = Parser("completion", DESCRIPTION)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("shell", nargs="?", choices=_SCRIPTS, metavar="bash|zsh|fish", help="the shell")
    which.add_argument(
        "--complete",
        metavar="WORD",
        nargs="...",
        help="print what the last WORD of a command line may become; the scripts call this",
    )
    return parser


def main(argv: list[str]) -> int:
    if argv[:1] == ["--complete"]:  # not by argparse, which would read the options of the line
        for word, purpose in candidates.after(argv[1:]):
            print(f"{printable(word)}\t{printable(purpose)}".rstrip())
        return 0
    options = parser().parse_args(argv)
    print(script(options.shell, _program()), end="")
    return 0


def script(shell: str, program: str = "cnihook") -> str:
    """Return the script for a shell.  `program`: the command that it runs at each Tab."""
    programs = " ".join(("cnihook", *candidates.PROGRAMS))
    return _SCRIPTS[shell].format(program=shlex.quote(program), programs=programs, files=candidates.FILES)


def _program() -> str:
    """Return the path of this program, because the shell may have another cnihook on its PATH, or none."""
    path = os.path.abspath(sys.argv[0])
    return path if os.access(path, os.X_OK) else "cnihook"
