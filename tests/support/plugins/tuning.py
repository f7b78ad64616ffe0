# SPDX-License-Identifier: Apache-2.0
"""Containers with an interface as another plugin makes it, for the tuning plugin."""

from typing import Any

from tests.support.host.host import Container, Host
from tests.support.plugins.cni import with_previous_result

FILES = "/run/cni/tuning"
FILE = f"{FILES}/c1_eth0.json"
OWN_MAC, MAC = "02:00:00:00:00:01", "02:00:00:00:00:99"
SOMAXCONN = "net/core/somaxconn"
ALL: dict[str, Any] = {"mac": MAC, "mtu": 1400, "promisc": True, "allmulti": True}


def untuned(host: Host) -> Container:
    """Return a container with eth0.  The leak check expects it unchanged."""
    container = host.container()
    made_by_another(host, container, "eth0")
    host.leaves("dir /run/cni", f"dir {FILES}")
    return container


def made_by_another(host: Host, container: Container, name: str) -> None:
    container.run(*f"ip link add {name} address {OWN_MAC} type veth peer name x{name}".split())
    host.save_state()


def conf(version: str = "1.0.0", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "net1", "type": "tuning", **keys}


def add(host: Host, container: Container, conf: Any, ifname: str = "eth0", **env: str) -> Any:
    """Call ADD as the second of a chain.  Returns the configuration for DEL and CHECK, with the result."""
    interfaces = [
        {"name": "veth1", "mac": "02:00:00:00:00:02"},
        {"name": ifname, "mac": OWN_MAC, "sandbox": container.path},
    ]
    previous = {
        "cniVersion": conf["cniVersion"],
        "interfaces": interfaces,
        "ips": [{"address": "10.9.0.2/24"}],
    }
    sent = {"prevResult": previous} | conf
    return with_previous_result(sent, host.cni("ADD", sent, container, ifname, **env))


def state(container: Container) -> dict[str, Any]:
    link = container.link("eth0")
    modes = {"promisc": "PROMISC" in link["flags"], "allmulti": "ALLMULTI" in link["flags"]}
    length = link.get("txqlen", 0)  # `ip` does not show 0
    return {"mac": link["address"], "mtu": link["mtu"], "txQLen": length, **modes}
