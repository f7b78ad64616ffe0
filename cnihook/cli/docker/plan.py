# SPDX-License-Identifier: Apache-2.0
"""The plan of `docker-run`: which options are for the networks, the container and the pause container."""

from cnihook.cli.docker import request
from cnihook.cli.docker.options import REQUESTS, Option, UsageError, split
from cnihook.request import values

# Docker rejects these for a container that shares another's network.  The pause container gets them: it
# shares them with the real container.
_NAMING = frozenset("hostname domainname expose".split())
_REFUSED = {
    "publish-all": "name each port with --publish",
    "link-local-ip": "name the address with --ip or --ip6",
    "link": "containers on one network find each other by --name, --hostname and --network-alias",
}


class Plan:
    """The options and arguments of one run, by their receiver."""

    def __init__(self, argv: list[str]) -> None:
        options, self.rest = split(argv)  # rest: IMAGE and all that follows
        self.help = any(option.name == "help" and option.is_on for option in options)
        if self.help:
            return
        networks = [_network(option.value) for option in options if option.name == "network"]
        # Docker's own networks.  With one of them, the whole command is left to docker.
        dockers = [name for name in networks if name in ("host", "none") or name.startswith("container:")]
        self.is_dockers = bool(dockers)
        # A network of docker's as well, unless there is a CNI network of this name.
        self.bridge = networks[0] if networks in (["bridge"], ["default"]) else ""
        if not self.rest or self.rest == ["--"]:
            raise UsageError("no IMAGE is given", "see `docker-run --help`")
        if self.is_dockers:
            if len(networks) > 1:
                raise UsageError(f"conflicting options: --network {dockers[0]} excludes other networks")
            return

        for option in options:
            if option.name in _REFUSED and option.is_on:
                raise UsageError(f"{option.flag} is not supported with CNI networks", _REFUSED[option.name])
        self.options = request.to_options(options)  # (option, text) each, of request.options
        self.runtime = _last(options, "runtime")
        self.restart = _last(options, "restart")
        self.naming = [word for option in options if option.name in _NAMING for word in option.words]
        # If the daemon runs containers in user namespaces, both containers must have the same one.
        self.userns = [word for option in options if option.name == "userns" for word in option.words]
        self.run = [
            word
            for option in options
            if option.name not in _NAMING | REQUESTS.keys()
            for word in option.words
        ]


def _network(text: str) -> str:
    return text if text.startswith("container:") else values.split_network(text)[0]


def _last(options: list[Option], name: str) -> str:
    return next((option.value for option in reversed(options) if option.name == name), "")
