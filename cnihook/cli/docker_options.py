# SPDX-License-Identifier: Apache-2.0
"""
The words behind `docker-run`: which are ours, which the container's, which the pause container's.

To find IMAGE one has to know which options take a value.  Docker has few that take none, and they stand in a
table here.  To read `docker run --help` would cost a process each time and buy little: all words but our own
reach docker in their order, so where an option is misjudged, docker itself says what is wrong.
"""

from cnihook.cli import docker_wants
from cnihook.cli.docker_wants import Refused
from cnihook.oci import words

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

# Docker refuses these to a container that shares another's network; that other one gives them to both.
_NAMING = frozenset("hostname domainname expose".split())
_REFUSED = {
    "publish-all": "name each port with --publish",
    "link-local-ip": "name the address with --ip or --ip6",
    "link": "containers on one network find each other by --name, --hostname and --network-alias",
}


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


class Plan:
    """What is to be run, and how."""

    def __init__(self, argv: list[str]) -> None:
        options, self.rest = split(argv)  # rest: IMAGE and all that follows
        self.help = any(option.name == "help" and option.is_on for option in options)
        if self.help:
            return
        networks = [_network(option.value) for option in options if option.name == "network"]
        # Networks that are none of CNI's business, and with them the whole command.
        dockers = [name for name in networks if name in ("host", "none") or name.startswith("container:")]
        self.is_dockers = bool(dockers)
        # Docker's as well, unless CNI has one of this name.
        self.bridge = networks[0] if networks in (["bridge"], ["default"]) else ""
        if not self.rest or self.rest == ["--"]:
            raise Refused("no IMAGE is given", "see `docker-run --help`")
        if self.is_dockers:
            if len(networks) > 1:
                raise Refused(f"conflicting options: --network {dockers[0]} goes with no other network")
            return

        for option in options:
            if option.name in _REFUSED and option.is_on:
                raise Refused(f"{option.flag} does not go with CNI networks", _REFUSED[option.name])
        self.said = docker_wants.said(options)  # (word, text) each, of the vocabulary of oci.wants
        self.runtime = _last(options, "runtime")
        self.restart = _last(options, "restart")
        self.naming = [word for option in options if option.name in _NAMING for word in option.words]
        # Where the daemon keeps containers in a user namespace, those on one network must agree on which.
        self.userns = [word for option in options if option.name == "userns" for word in option.words]
        self.run = [
            word
            for option in options
            if option.name not in _NAMING | docker_wants.OPTIONS
            for word in option.words
        ]


def _network(text: str) -> str:
    return text if text.startswith("container:") else words.split_network(text)[0]


def _last(options: list[Option], name: str) -> str:
    return next((option.value for option in reversed(options) if option.name == name), "")


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
