# SPDX-License-Identifier: Apache-2.0
"""
The words behind `docker-run`: which are ours, which the container's, which the pause container's.

To find IMAGE one has to know which options take a value.  Docker has few that take none, and they stand in a
table here.  To read `docker run --help` would cost a process each time and buy little: all words but our own
reach docker in their order, so where an option is misjudged, docker itself says what is wrong.
"""

SWITCHES = frozenset(
    "detach disable-content-trust help init interactive no-healthcheck oom-kill-disable privileged"
    " publish-all quiet read-only rm sig-proxy tty use-api-socket no-default-route".split()
)
# The short ones that are switches or mean something to us.
_LONG = {
    "d": "detach",
    "h": "hostname",
    "i": "interactive",
    "P": "publish-all",
    "p": "publish",
    "q": "quiet",
    "t": "tty",
    "net": "network",  # docker's old name for it
}

# Docker refuses these to a container that shares another's network; that other one gives them to both.
_PAUSES_OWN = frozenset("hostname domainname dns dns-opt dns-option dns-search add-host expose".split())
_BY_NAME = "CNI has no names for containers: give the other's address with --add-host NAME:ADDRESS"
# Wants that plugins serve: docker is not told of them.
_OF_NETWORKS = frozenset("publish ip ip6 mac-address bandwidth route no-default-route".split())
_REFUSED = {
    "publish-all": "name each port with --publish",
    "link-local-ip": "name the address with --ip or --ip6",
    "link": _BY_NAME,
    "network-alias": _BY_NAME,
    "net-alias": _BY_NAME,
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


class Refused(Exception):
    """What was asked for cannot be had: what and why, then what to do."""

    def __str__(self) -> str:
        return "; ".join(self.args)


class Plan:
    """What is to be run, and how."""

    def __init__(self, argv: list[str]) -> None:
        options, self.rest = split(argv)  # rest: IMAGE and all that follows
        self.help = any(option.name == "help" and option.is_on for option in options)
        networks = [option.value for option in options if option.name == "network"]
        # Networks that are none of CNI's business, and with them the whole command.
        self.is_dockers = any(name in ("host", "none") or name.startswith("container:") for name in networks)
        if self.help:
            return
        if not self.rest or self.rest == ["--"]:
            raise Refused("no IMAGE is given", "see `docker-run --help`")
        if self.is_dockers:
            if len(networks) > 1:
                raise Refused(
                    f"--network {' and '.join(networks)}: host, none and container:NAME go with no other"
                )
            return

        for option in options:
            _refuse(option)
        self.networks = networks or None  # NAME[:IFNAME] each; None: all that there are
        self.said = [(option.name, option.value) for option in options if option.name in _OF_NETWORKS]
        self.own_dns = {option.name for option in options if option.name.startswith("dns")}
        self.pause = [word for option in options if option.name in _PAUSES_OWN for word in option.words]
        self.run = [
            word
            for option in options
            if option.name not in _PAUSES_OWN | _OF_NETWORKS and option.name != "network"
            for word in option.words
        ]
        # Where the daemon keeps containers in a user namespace, the two must agree on which.
        self.pause += [word for option in options if option.name == "userns" for word in option.words]


def _refuse(option: Option) -> None:
    if option.name in _REFUSED and option.is_on:
        raise Refused(f"{option.flag} does not go with CNI networks", _REFUSED[option.name])
    if option.name == "restart" and option.value.partition(":")[0] in ("always", "unless-stopped"):
        raise Refused(
            f"--restart {option.value} does not go with CNI networks",
            "docker would start the container after a reboot, and nobody its network: on-failure works",
        )
    if option.name == "network" and "=" in option.value:
        raise Refused(
            f"--network {option.value} is docker's form, for docker's networks", "write NAME or NAME:IFNAME"
        )


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
