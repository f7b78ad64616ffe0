# SPDX-License-Identifier: Apache-2.0
"""
Docker's options, separated from IMAGE and the arguments after it.

To find IMAGE, one has to know which options take a value.  Docker has few that take none; these are
listed here.  Rejected: reading `docker run --help`, which costs a process each time for little.  All other
arguments reach docker in their order, so docker itself reports an option that was misjudged here.
"""

from cnihook.request import option_table

_ENTRIES = option_table.of(option_table.DOCKER_RUN)
# The options that the networks implement, with docker's form of them.
REQUESTS = {entry.name: entry.docker for entry in _ENTRIES if entry.docker}
SWITCHES = frozenset(
    "detach disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged"
    " publish-all quiet read-only rm sig-proxy tty use-api-socket".split()
).union(entry.name for entry in _ENTRIES if not entry.needs_value)
# Short options that are switches or that docker-run reads, and docker's old names.
_LONG = {
    **{"d": "detach", "h": "hostname", "i": "interactive", "P": "publish-all", "q": "quiet", "t": "tty"},
    **{entry.short.lstrip("-"): entry.name for entry in _ENTRIES if entry.short},
    **{docker.alias: name for name, docker in REQUESTS.items() if docker.alias},
}


class UsageError(Exception):
    """A request that cannot be met: what and why, then what to do."""

    def __str__(self) -> str:
        return "; ".join(self.args)


class Option:
    """One option of `docker run`.  `words`: the arguments that pass it on."""

    def __init__(self, flag: str, value: str, words: list[str]) -> None:
        self.flag = flag  # as written, for messages
        self.name = _LONG.get(flag.lstrip("-"), flag.lstrip("-"))
        self.value = value
        self.words = words

    @property
    def is_on(self) -> bool:
        """True unless Go's strconv.ParseBool reads the switch's value as false."""
        return self.value not in ("0", "f", "F", "false", "FALSE", "False")


def split(argv: list[str]) -> tuple[list[Option], list[str]]:
    """Return the options before IMAGE, and the rest unchanged.  Raises UsageError if a value is missing."""
    options: list[Option] = []
    pending = list(argv)
    while pending and pending[0].startswith("-") and pending[0] not in ("-", "--"):
        word = pending.pop(0)
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            options.append(_option(flag, value if equals else None, pending))
            continue
        letters = word[1:]
        while letters:
            flag, letters = f"-{letters[0]}", letters[1:]
            if letters.startswith("="):  # -d=false, -e=A=B
                options.append(_option(flag, letters[1:], pending))
                break
            if _LONG.get(flag[1:]) in SWITCHES:
                options.append(_option(flag, None, pending))
                continue
            options.append(_option(flag, letters or None, pending))  # -eA=B, or -e A=B
            break
    return options, pending


def _option(flag: str, value: str | None, pending: list[str]) -> Option:
    if _LONG.get(flag.lstrip("-"), flag.lstrip("-")) in SWITCHES:
        return Option(flag, value or "true", [flag if value is None else f"{flag}={value}"])
    if value is None:
        if not pending:
            raise UsageError(f"{flag} needs a value", "see `docker run --help`")
        value = pending.pop(0)
    return Option(flag, value, [flag, value])
