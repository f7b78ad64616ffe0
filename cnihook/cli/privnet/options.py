# SPDX-License-Identifier: Apache-2.0
"""The arguments of `priv-net-run`.  Not by argparse, which costs 8 ms and would read COMMAND's options."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cnihook.request.options import Option

_OWN = ("--conf-dir", "--cni-path", "--name", "--netns", "--user", "--env", "--timeout", "--pcap", "--json")
_SEE = "see `priv-net-run --help`"


class UsageError(Exception):
    """A request that cannot be met."""


class Options:
    """The options of the command line.  All arguments from the first operand on are the command."""

    def __init__(self, argv: "list[str]") -> None:
        self.answer = ""  # to --help or --version
        self.requested: list[tuple[str, str]] = []  # option and value, understood later
        self.conf_dir = ""
        self.plugin_dirs: list[str] | None = None
        self.name = ""
        self.netns = ""
        self.delete = False
        self.user = ""
        self.root = False
        self.wait = False
        self.variables: dict[str, str] = {}
        self.timeout = 0.0  # none
        self.pcap = ""
        self.json = ""
        self.command = list(argv)
        while self.command and self.command[0].startswith("-"):
            word = self.command.pop(0)
            if word == "--":
                break
            self._read(word)
            if self.answer:
                return
        if self.root and self.user:
            raise UsageError("--root and --user cannot be combined: --root means --user root")
        if self.name and self.netns:
            raise UsageError(
                "--name and --netns cannot be combined: a namespace that is kept has its own name"
            )
        if self.delete:
            if self.command or not self.netns:
                raise UsageError(f"--delete needs --netns NAME, and takes no command; {_SEE}")
        elif not self.command:
            raise UsageError(f"no command given; {_SEE}")

    def _read(self, word: str) -> None:
        option, equals, value = word.partition("=")
        if option in ("--help", "-h"):
            from cnihook.cli.privnet import help

            self.answer = help.text()
        elif option == "--version":
            from cnihook import __version__

            self.answer = f"priv-net-run {__version__}\n"
        elif option == "--root" and not equals:
            self.root = True
        elif option == "--wait" and not equals:
            self.wait = True
        elif option == "--delete" and not equals:
            self.delete = True
        elif option in _OWN:
            self._set(option, value if equals else self._next(option))
        elif request := _request(option):
            is_complete = equals or request.is_switch
            self.requested.append((option, value if is_complete else self._next(option)))
        else:
            raise UsageError(f"unknown option {option!r}; {_SEE}")

    def _next(self, option: str) -> str:
        if not self.command:
            raise UsageError(f"{option} needs a value; {_SEE}")
        return self.command.pop(0)

    def _set(self, option: str, value: str) -> None:
        if option == "--cni-path":
            self.plugin_dirs = value.split(":")
        elif option == "--env":
            name, equals, content = value.partition("=")
            if not (name and equals):
                raise UsageError(f"--env {value!r}: it takes KEY=VALUE")
            self.variables[name] = content
        elif option == "--timeout":
            self.timeout = _seconds(value)
        elif not value:
            raise UsageError(f"{option}: its value is empty; {_SEE}")
        elif option == "--conf-dir":
            self.conf_dir = value
        elif option == "--name":
            self.name = value
        elif option == "--netns":
            self.netns = value
        elif option == "--user":
            self.user = value
        elif option == "--pcap":
            self.pcap = value
        else:
            self.json = value


def _request(option: str) -> "Option | None":
    from cnihook.request import options  # a plain run has none

    return options.option_for(option)


def _seconds(text: str) -> float:
    try:
        value = float(text)
        if 0 < value < 1e9:
            return value
    except ValueError:
        pass
    raise UsageError(f"--timeout {text!r}: it takes a number of seconds")
