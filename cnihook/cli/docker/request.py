# SPDX-License-Identifier: Apache-2.0
"""
Docker's options that request something of the networks, as options of request.options.

They keep docker's meaning: an option outside --network applies to the first network that is named.
"""

from cnihook.cli.docker.options import REQUESTS, Option, UsageError
from cnihook.request import values
from cnihook.types.errors import CniError
from cnihook.types.names import check_network_name


def to_options(options: list[Option]) -> list[tuple[str, str]]:
    """Return (option, text) for each request.  Raises UsageError or CniError."""
    networks = [values.split_network(option.value) for option in options if option.name == "network"]
    for name, _ in networks:
        check_network_name(name)
    own = {key for key, _ in networks[0][1]} if networks else set()
    requests = []
    for option in options:
        if option.name == "publish":
            requests.append(("publish", _short_port(option.value)))
        elif option.name == "name":
            requests += [("network-alias", name) for name in _as_alias(option.value)]
        elif option.name in REQUESTS and option.name != "network":
            docker = REQUESTS[option.name]
            if docker.key and networks:
                if docker.key in own:
                    raise UsageError(
                        f"conflicting options: cannot specify both --{option.name} "
                        f"and per-network {docker.term}"
                    )
                networks[0][1].append((docker.key, option.value))
            elif option.is_on:
                requests.append((option.name, option.value))
    return [*(("network", _joined(*network)) for network in networks), *requests]


def _joined(name: str, options: list[tuple[str, str]]) -> str:
    return f"{name}:{','.join(f'{key}={value}' for key, value in options)}" if options else name


def _as_alias(name: str) -> list[str]:
    """Return the container's name, by which docker's containers find each other, if it can be looked up.

    A name with a dot is left out: it was not requested as an alias, and most networks would reject it.
    """
    try:
        return [] if "." in name else [values.parse_alias(name)]
    except CniError:
        return []


def _short_port(text: str) -> str:
    """Return docker's published=8080,target=80,protocol=tcp in the short form, 8080:80/tcp."""
    if "=" not in text:
        return text
    parts = dict(part.strip().partition("=")[::2] for part in text.split(","))
    unknown = parts.keys() - {"published", "target", "protocol", "mode"}
    if unknown or not parts.get("target"):
        raise UsageError(
            f"invalid publish opts format: {text}", "it takes published=PORT,target=PORT,protocol=PROTOCOL"
        )
    host = f"{parts['published']}:" if parts.get("published") else ""
    return f"{host}{parts['target']}/{parts.get('protocol', 'tcp')}"
