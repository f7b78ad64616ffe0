# SPDX-License-Identifier: Apache-2.0
"""Configurations of the bridge plugin, and the links that its result names."""

from typing import Any

from tests.support.host.host import Container, Host
from tests.support.plugins.ipam import LEASES, leased

__all__ = ["LEASES", "add", "address", "leased", "network", "port"]


def network(*subnets: str, version: str = "1.0.0", name: str = "net1", **keys: Any) -> dict[str, Any]:
    """Return a bridge network with one address of each subnet.  A key that is None is left out."""
    conf: dict[str, Any] = {"cniVersion": version, "name": name, "type": "bridge", "bridge": "cni0"}
    if subnets:
        ranges = [[{"subnet": subnet}] for subnet in subnets]
        conf["ipam"] = {"type": "host-local", "ranges": ranges} | keys.pop("ipam", {})
    return {key: value for key, value in (conf | keys).items() if value is not None}


def add(
    host: Host, conf: Any, container: Container | None = None, ifname: str = "eth0", **env: str
) -> tuple[Container, Any]:
    """Attach a container, a new one by default.  Returns it and the result."""
    container = container or host.container()
    return container, host.cni("ADD", conf, container, ifname, **env)


def address(result: Any, index: int = 0) -> str:
    return str(result["ips"][index]["address"]).partition("/")[0]


def port(host: Host, result: Any) -> Any:
    """Return the host end of the container's link."""
    return host.link(result["interfaces"][1]["name"])
