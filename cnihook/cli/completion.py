# SPDX-License-Identifier: Apache-2.0
"""cnihook completion: scripts that complete commands, programs and their options in a shell."""

import argparse
from collections.abc import Iterator

from cnihook.cli import main as commands
from cnihook.cli.shared.arguments import Parser
from cnihook.request import option_table

DESCRIPTION = """\
Print the script by which a shell completes the commands of `cnihook`, their options and names of networks,
and the options of priv-net-run and docker-run:

  in ~/.bashrc                     eval "$(cnihook completion bash)"
  in ~/.zshrc, after compinit      eval "$(cnihook completion zsh)"
  in ~/.config/fish/config.fish    cnihook completion fish | source
"""

_BASH = """\
_cnihook() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words=
  if (( COMP_CWORD == 1 )); then
    words="{commands}"
  else
    case ${{COMP_WORDS[1]}} in
{cases}
    esac
    case ${{COMP_WORDS[1]}} in
      {with_network})
        [[ $word == -* ]] || words="$words $(cnihook list 2> /dev/null | grep -o '^[^ ]*')" ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  [[ $word == -* || ${{#COMPREPLY[@]}} -gt 0 ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
}}
complete -F _cnihook cnihook
_cnihook_program() {{
  local words=
  case ${{1##*/}} in
{programs}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
}}
complete -o default -F _cnihook_program {names}
"""

_ZSH = """\
_cnihook() {{
  local -a words
  if (( CURRENT == 2 )); then
    words=(
{commands}
    )
    _describe command words
    return
  fi
  case $words[2] in *) ;; esac
  local command=${{${{(z)BUFFER}}[2]}}
  case $command in
{cases}
  esac
  case $command in
    {with_network}) compadd -- ${{(f)"$(cnihook list 2> /dev/null | grep -o '^[^ ]*')"}} ;;
    *) _files ;;
  esac
}}
compdef _cnihook cnihook
_cnihook_program() {{
  case $service in
{programs}
  esac
  _files
}}
compdef _cnihook_program {names}
"""

_PROGRAMS = (option_table.PRIV_NET_RUN, option_table.DOCKER_RUN)
_WITH_NETWORK = ("add", "del", "check", "gc", "status", "plan")


def parser() -> Parser:
    parser = Parser("completion", DESCRIPTION)
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[options.shell](), end="")
    return 0


def _options(command: str) -> Iterator[tuple[str, str]]:
    """Yield (option, purpose) for each long option of a command or program."""
    if command in (*commands.HOOK, *_PROGRAMS):
        for entry in option_table.of(option_table.HOOK if command in commands.HOOK else command):
            yield f"--{entry.name}", entry.help
        yield "--help", "print the help text"
        if command == option_table.PRIV_NET_RUN:
            yield "--version", "print the version"
        return
    for action in commands.load(command).parser()._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                yield option, "" if action.help in (None, argparse.SUPPRESS) else str(action.help)


def _names(command: str) -> str:
    return " ".join(option for option, _ in _options(command))


def _bash() -> str:
    return _BASH.format(
        commands=" ".join(commands.COMMANDS),
        cases="\n".join(f'      {command}) words="{_names(command)}" ;;' for command in commands.COMMANDS),
        with_network="|".join(_WITH_NETWORK),
        programs="\n".join(f'    {program}) words="{_names(program)}" ;;' for program in _PROGRAMS),
        names=" ".join(_PROGRAMS),
    )


def _zsh() -> str:
    def quoted(word: str, text: str) -> str:
        return "'" + f"{word}:{text}".replace("'", "'\\''") + "'"

    def case(command: str) -> str:
        return f"    {command}) compadd -- {_names(command)} ;;"

    return _ZSH.format(
        commands="\n".join(f"      {quoted(name, purpose)}" for name, purpose in commands.COMMANDS.items()),
        cases="\n".join(map(case, commands.COMMANDS)),
        with_network="|".join(_WITH_NETWORK),
        programs="\n".join(map(case, _PROGRAMS)),
        names=" ".join(_PROGRAMS),
    )


def _fish() -> str:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["complete -c cnihook -f"]
    for name, purpose in commands.COMMANDS.items():
        lines.append(f"complete -c cnihook -n __fish_use_subcommand -a {name} -d {quoted(purpose)}")
    for name in commands.COMMANDS:
        for option, purpose in _options(name):
            condition = quoted(f"__fish_seen_subcommand_from {name}")
            lines.append(
                f"complete -c cnihook -n {condition} -l {option.removeprefix('--')} -d {quoted(purpose)}"
            )
    for program in _PROGRAMS:
        for option, purpose in _options(program):
            lines.append(f"complete -c {program} -l {option.removeprefix('--')} -d {quoted(purpose)}")
    networks = quoted("(cnihook list 2> /dev/null | string match -r '^[^ ]+')")
    for name in _WITH_NETWORK:
        condition = quoted(f"__fish_seen_subcommand_from {name}")
        lines.append(f"complete -c cnihook -n {condition} -a {networks}")
    return "\n".join(lines) + "\n"
