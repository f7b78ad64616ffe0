# SPDX-License-Identifier: Apache-2.0
"""Configurations of macvlan, ipvlan and vlan on the uplink of a throw-away host."""

from typing import Any

from tests.support.host.host import Outside

SUBNET = {"subnet": "198.51.100.0/24", "rangeStart": "198.51.100.10", "gateway": Outside.ADDRESS}
SUBNET6 = {"subnet": "2001:db8:100::/64", "rangeStart": "2001:db8:100::10", "gateway": Outside.ADDRESS6}
FIRST = "198.51.100.10"  # the address of the first container


def network(kind: str, *subnets: dict[str, str], version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    """Return a network with an address of each subnet, by default SUBNET; a key that is None is left out."""
    ranges = [[subnet] for subnet in subnets or (SUBNET,)]
    conf: dict[str, Any] = {
        "cniVersion": version,
        "name": "net1",
        "type": kind,
        "master": "up0",
        "ipam": {"type": "host-local", "ranges": ranges},
    }
    return {key: value for key, value in (conf | keys).items() if value is not None}


def static(kind: str, *addresses: str, ipam: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    own = {"type": "static", "addresses": [{"address": address} for address in addresses]}
    return network(kind, ipam=own | (ipam or {}), **keys)
