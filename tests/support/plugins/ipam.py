# SPDX-License-Identifier: Apache-2.0
"""Calls of host-local as an interface plugin makes them: with a container ID, without a container."""

from typing import Any

from tests.support.host.host import Host

LEASES = "/var/lib/cni/networks/net1"
OWNERS = (f"dir {LEASES}/.owners", f"file {LEASES}/.owners/*")  # the links to leases that stay


def network(*sets: Any, version: str = "1.0.0", name: str = "net1", **ipam: Any) -> dict[str, Any]:
    """Return a configuration whose ranges are `sets`: lists of ranges; a text is the subnet of a range."""
    ranges = [
        [
            {"subnet": part} if isinstance(part, str) else part
            for part in (one if isinstance(one, list) else [one])
        ]
        for one in sets
    ]
    return {
        "cniVersion": version,
        "name": name,
        "type": "anything",
        "ipam": {"type": "host-local", **({"ranges": ranges} if ranges else {}), **ipam},
    }


def request(host: Host, command: str, conf: Any, owner: str = "c1", ifname: str = "eth0", **env: str) -> Any:
    env = {"CNI_CONTAINERID": owner, "CNI_NETNS": f"/run/netns/{owner}"} | env
    return host.cni(command, conf, None, ifname, "host-local", **env)


def add(host: Host, conf: Any, owner: str = "c1", ifname: str = "eth0", **env: str) -> list[str]:
    """Call ADD.  Returns the leased addresses, without their prefix lengths."""
    result = request(host, "ADD", conf, owner, ifname, **env)
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


def delete(host: Host, conf: Any, owner: str = "c1", ifname: str = "eth0", **env: str) -> None:
    assert request(host, "DEL", conf, owner, ifname, **env) is None


def leased(host: Host, folder: str = LEASES) -> list[str]:
    """Return the addresses that have a lease, of any program."""
    return [
        name
        for name in host.listdir(folder)
        if name[0] in "0123456789abcdef" and not name.startswith("last")
    ]
