# SPDX-License-Identifier: Apache-2.0
"""A device of the host that the host-device plugin can move: one end of a veth pair; the other end stays."""

from typing import Any

from tests.support.host.host import Container, Host

DEVICE, FAR = "dev0", "far0"
MAC = "02:00:00:00:00:11"
NEAR_ADDRESS, FAR_ADDRESS = "10.9.0.2", "10.9.0.1"


def plug(host: Host, *commands: str) -> None:
    """Create the device, set it up, and run further commands of `ip`.  The leak check expects it back so."""
    batch = [
        f"link add {DEVICE} index 101 address {MAC} type veth peer name {FAR} index 102",
        f"link set {DEVICE} up",
        f"link set {FAR} up",
        f"address add {FAR_ADDRESS}/24 dev {FAR}",
        *commands,
    ]
    host.run("ip", "-batch", "-", input="\n".join(batch) + "\n")
    host.save_state()


def conf(version: str = "1.0.0", name: str = "net1", **keys: Any) -> dict[str, Any]:
    """Return a configuration of the plugin.  A key that is None is left out."""
    raw = {"cniVersion": version, "name": name, "type": "host-device", "device": DEVICE} | keys
    return {key: value for key, value in raw.items() if value is not None}


IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": NEAR_ADDRESS}]]}


def taken(container: Container, ifname: str = "eth0") -> Any:
    """Return the device in the container, as `ip` prints it."""
    return container.link(ifname)
