# SPDX-License-Identifier: Apache-2.0
"""Networks with the plugin ptp."""

from typing import Any

from tests.support.plugins.bridge import network as bridge_network

SUBNET, SUBNET6 = "10.9.0.0/24", "2001:db8:9::/64"
DEFAULT = {"dst": "0.0.0.0/0"}


def network(*subnets: str, **keys: Any) -> dict[str, Any]:
    return bridge_network(*subnets, **{"type": "ptp", "bridge": None} | keys)


def static(*addresses: dict[str, str], **keys: Any) -> dict[str, Any]:
    return network(ipam={"type": "static", "addresses": list(addresses)}, **keys)


ROUTED = network(SUBNET, ipam={"routes": [DEFAULT]})
MASQUERADED = ROUTED | {"ipMasq": True}
BOTH = network(SUBNET, SUBNET6, ipMasq=True, ipam={"routes": [DEFAULT, {"dst": "::/0"}]})
