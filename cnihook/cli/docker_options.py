# SPDX-License-Identifier: Apache-2.0
"""
Docker's options, told from IMAGE and the words behind it.

To find IMAGE one has to know which options take a value.  Docker has few that take none, and they stand in a
table here.  To read `docker run --help` would cost a process each time and buy little: all words but our own
reach docker in their order, so where an option is misjudged, docker itself says what is wrong.
"""

SWITCHES = frozenset(
    "detach disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged"
    " publish-all quiet read-only rm sig-proxy tty use-api-socket no-default-route".split()
)
# The short ones that are switches or mean something to us, and docker's old names.
_LONG = {
    "d": "detach",
    "h": "hostname",
    "i": "interactive",
    "P": "publish-all",
    "p": "publish",
    "q": "quiet",
    "t": "tty",
    "net": "network",
    "net-alias": "network-alias",
    "dns-opt": "dns-option",
}


class Refused(Exception):
    """What was asked for cannot be had: what and why, then what to do."""

    def __str__(self) -> str:
        return "; ".join(self.args)


class Option:
    """One option of `docker run`.  `words`: how to hand it on."""

    def __init__(self, flag: str, value: str, words: list[str]) -> None:
        self.flag = flag  # as it was written, for messages
        self.name = _LONG.get(flag.lstrip("-"), flag.lstrip("-"))
        self.value = value
        self.words = words

    @property
    def is_on(self) -> bool:
        """What a switch says, as Go's strconv.ParseBool reads it."""
        return self.value not in ("0", "f", "F", "false", "FALSE", "False")


def split(argv: list[str]) -> tuple[list[Option], list[str]]:
    """The options before IMAGE, and the rest untouched.  Raises Refused where a value is missing."""
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
            raise Refused(f"{flag} needs a value", "see `docker run --help`")
        value = pending.pop(0)
    return Option(flag, value, [flag, value])
