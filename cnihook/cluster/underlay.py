# SPDX-License-Identifier: Apache-2.0
"""The network between the hosts of a cluster, as this host sees it."""

import socket
from urllib.parse import urlsplit


def address_towards(endpoints: "tuple[str, ...]") -> str:
    """Return this host's address towards a server of etcd, empty without a route.  It sends nothing."""
    for url in endpoints:
        parts = urlsplit(url)
        try:
            family, kind, protocol, _name, target = socket.getaddrinfo(
                parts.hostname, parts.port or 2379, type=socket.SOCK_DGRAM
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(target)
                address: str = probe.getsockname()[0]
        except OSError:
            continue
        if not address.startswith("127.") and address != "::1":
            return address.partition("%")[0]
    return ""
