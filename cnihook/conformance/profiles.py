# SPDX-License-Identifier: Apache-2.0
"""
Profiles of plugins: for each a configuration with which it works, and what it needs on the host.

The reference's plugins are known by their types.  For any other plugin the user gives the configuration.
"""

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnihook.conformance.check import CheckSkipped
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import Rtnl

INTERFACE, LOOPBACK, IPAM, CHAINED = "interface", "loopback", "ipam", "chained"
STAND_IN = "conformance-ipam"  # the suite's own IPAM plugin
UPLINK = "up0"

_PER_CONTAINER = Callable[[int], Mapping[str, Any]]


@dataclass
class Profile:
    """A plugin's kind, configuration and needs.  `own` returns the keys that differ by container number."""

    kind: str
    conf: Mapping[str, Any] = field(default_factory=dict)
    own: _PER_CONTAINER = lambda number: {}
    delegates: bool = False
    allocates: bool = False  # assigns a different address to each container
    gc_conf: Mapping[str, Any] = field(default_factory=dict)  # keys with which it leaves more on the host
    link_kind: str = ""  # the kernel must support this kind of link
    device: str = ""  # a file that the machine must have
    lacking: str = ""  # a need of the plugin that the suite cannot meet
    uplink: bool = False
    devices: bool = False

    def prepare(self, rtnl: Rtnl) -> None:
        """Create what the host must have before the first ADD."""
        if self.uplink:
            _pair(rtnl, UPLINK)

    def prepare_for(self, rtnl: Rtnl, number: int) -> None:
        if self.devices:
            _pair(rtnl, f"dev{number}")

    def require(self, rtnl: Rtnl) -> None:
        """Raise CheckSkipped if an ADD cannot work here."""
        if self.lacking:
            raise CheckSkipped(self.lacking)
        if self.device and not os.path.exists(self.device):
            raise CheckSkipped(f"this machine has no {self.device}")
        if self.link_kind and not _knows(rtnl, self.link_kind):
            raise CheckSkipped(f"this kernel has no {self.link_kind} links")


def _pair(rtnl: Rtnl, name: str) -> None:
    rtnl.add_veth(name, f"{name}-far", up=True)
    rtnl.set_link(rtnl.link(f"{name}-far"), up=True)


def _knows(rtnl: Rtnl, kind: str) -> bool:
    """Return True if the kernel supports the kind.

    The kernel rejects a kind that lacks its attributes with another error than an unknown kind.
    """
    try:
        rtnl.add_link(kind, "probe0")
    except NetlinkError as error:
        return error.errno != errno.EOPNOTSUPP
    rtnl.delete_link_named("probe0")
    return True


def _delegating(conf: Mapping[str, Any], **more: Any) -> Profile:
    return Profile(INTERFACE, {"ipam": {"type": STAND_IN}, **conf}, delegates=True, **more)


def _port_of(number: int) -> "dict[str, Any]":
    mapping = {"hostPort": 8000 + number, "containerPort": 80, "protocol": "tcp"}
    return {"runtimeConfig": {"portMappings": [mapping]}}


def _address_of(number: int) -> "dict[str, Any]":
    address = {"address": f"10.77.0.{number + 1}/24", "gateway": "10.77.0.1"}
    return {"ipam": {"type": "static", "addresses": [address], "routes": [{"dst": "0.0.0.0/0"}]}}


_RATE = {key: 8_000_000 for key in ("ingressRate", "ingressBurst", "egressRate", "egressBurst")}
_POOL = {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}

KNOWN = {
    "bridge": _delegating({"bridge": "cnf0", "isGateway": True}, gc_conf={"ipMasq": True}),
    "ptp": _delegating({}, gc_conf={"ipMasq": True}),
    "macvlan": _delegating({"master": UPLINK}, uplink=True, link_kind="macvlan"),
    "ipvlan": _delegating({"master": UPLINK}, uplink=True, link_kind="ipvlan"),
    # A parent link can have one child link for each VLAN ID.
    "vlan": _delegating(
        {"master": UPLINK}, own=lambda number: {"vlanId": 100 + number}, uplink=True, link_kind="vlan"
    ),
    "host-device": _delegating({}, own=lambda number: {"device": f"dev{number}"}, devices=True),
    "dummy": _delegating({}, link_kind="dummy"),
    "tap": _delegating({}, device="/dev/net/tun"),
    "loopback": Profile(LOOPBACK),
    "host-local": Profile(IPAM, {"ipam": _POOL}, allocates=True),
    "static": Profile(IPAM, own=_address_of),
    "dhcp": Profile(
        IPAM, {"ipam": {"type": "dhcp"}}, lacking="it needs its daemon and a DHCP server on the network"
    ),
    "portmap": Profile(CHAINED, {"snat": True}, own=_port_of),
    "firewall": Profile(CHAINED),
    "bandwidth": Profile(CHAINED, _RATE),
    "tuning": Profile(CHAINED, {"mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}}),
    "sbr": Profile(CHAINED),
    "vrf": Profile(CHAINED, {"vrfname": "blue"}, link_kind="vrf"),
}


def read_conf(path: str) -> "dict[str, dict[str, Any]]":
    """Return the plugins' configurations in a file, by type.  Raises ValueError.

    The file holds a configuration list or a single plugin's configuration.
    """
    try:
        raw = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    plugins = raw.get("plugins", [raw]) if isinstance(raw, dict) else None
    if not isinstance(plugins, list) or not plugins:
        raise ValueError(f"{path}: neither a plugin's configuration nor a list of them")
    confs = {}
    for plugin in plugins:
        if not isinstance(plugin, dict) or not isinstance(plugin.get("type"), str):
            raise ValueError(f'{path}: a plugin\'s configuration needs a "type"')
        left_out = ("name", "cniVersion", "cniVersions", "prevResult")
        confs[plugin["type"]] = {key: value for key, value in plugin.items() if key not in left_out}
    return confs


def given(conf: Mapping[str, Any], kind: str = "") -> Profile:
    """Return the profile for a user's configuration.  If `kind` is empty, probe() finds it by trying."""
    ipam = conf.get("ipam")
    delegates = kind != IPAM and isinstance(ipam, dict) and bool(ipam.get("type"))
    return Profile(kind, conf, delegates=delegates)
