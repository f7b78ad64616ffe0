# SPDX-License-Identifier: Apache-2.0
"""
From the options of `network create` to a network's list of plugins.

A driver is an interface plugin: one for which the host routes, or one on a parent link.  What it can do is
in its FIELDS and TRAITS, so that no driver is named here.
"""

from cnihook.fast.address import Address, IPNet
from cnihook.protocol import invoke
from cnihook.types.errors import invalid_config
from cnihook.types.fields import Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "bridge"
_MASQUERADES, _PARENT = "ipMasq", "master"
_HAIRPIN, _EXCLUDES_HAIRPIN = "hairpinMode", "promiscMode"
_VLANS = ("vlanId", "vlan")  # the VLAN of a parent link, of a bridge
_SYSCTL = "sysctl."
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
# Options of docker and podman, by the keys of the plugins.
_ALIASES = {
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.bridge.name": "bridge",
    "com.docker.network.bridge.enable_ip_masquerade": _MASQUERADES,
    "macvlan_mode": "mode",
    "ipvlan_mode": "mode",
    "parent": _PARENT,
}
_LIMITS = dict.fromkeys(("bandwidth", "emulate", "quota"), True)
_REQUESTS = ("ips", "mac")  # capabilities that a container may use on any network


class Driver:
    """The interface plugin of a network."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.traits = invoke.traits(name)
        self.fields = {field.name: field for field in invoke.fields(name)}

    @property
    def has_bridge(self) -> bool:
        return "bridge" in self.traits.makes

    @property
    def has_parent(self) -> bool:
        return _PARENT in self.fields

    @property
    def routes(self) -> bool:
        """True if the host can be the router of the containers."""
        return _MASQUERADES in self.fields

    @property
    def vlan_key(self) -> str:
        """The key of the containers' VLAN; empty if the driver has none."""
        return next((key for key in _VLANS if key in self.fields), "")

    @property
    def takes_leases_of_others(self) -> bool:
        """True if a DHCP server of the parent link's network can assign addresses: by the MAC address."""
        return self.has_parent and (self.vlan_key != "" or "mac" in self.traits.takes)


def names() -> "list[str]":
    """Return the drivers, sorted."""
    return [one.name for one in map(Driver, _interface_plugins()) if one.routes or one.has_parent]


def _interface_plugins() -> "list[str]":
    return [name for name in invoke.built_in_types() if invoke.traits(name).kind == "interface"]


class Range:
    """A subnet, with what --gateway and --ip-range set in it."""

    def __init__(self, subnet: IPNet) -> None:
        self.subnet = subnet
        self.gateway: Address | None = None
        self.part: IPNet | None = None

    @property
    def bounds(self) -> "tuple[Address, Address]":
        """The first and the last address that containers may get."""
        subnet, part = self.subnet, self.part or self.subnet
        first = max(part.first(), subnet.first() + 1)
        is_v4 = subnet.address.version == 4
        return first, min(part.last(), subnet.last() + (-1 if is_v4 else 0))

    def to_json(self) -> "dict[str, str]":
        raw = {"subnet": str(self.subnet)}
        if self.part:
            raw["rangeStart"], raw["rangeEnd"] = map(str, self.bounds)
        if self.gateway:
            raw["gateway"] = str(self.gateway)
        return raw


class Plan:
    """A network that is about to be written."""

    def __init__(self, name: str, driver: Driver) -> None:
        self.name = name
        self.driver = driver
        self.ranges: list[Range] = []
        self.keys: dict[str, Any] = {}  # of the driver
        self.sysctls: dict[str, str] = {}
        self.dns: list[str] = []
        self.internal = False
        self.isolated = False

    def plugins(self) -> "list[dict[str, Any]]":
        """Return the list of plugins: the driver, and those that follow it."""
        first = {"type": self.driver.name, **self.keys}
        if self.driver.routes and not self.internal:
            first.setdefault(_MASQUERADES, True)
        if _HAIRPIN in self.driver.fields and not (self.internal or self.keys.get(_EXCLUDES_HAIRPIN)):
            # Docker sets net.bridge.bridge-nf-call-iptables.  Without hairpin mode, a container then gets no
            # answer from its own published port; docker uses it, too, if it has no proxy for ports.
            first.setdefault(_HAIRPIN, True)
        if isinstance(self.driver.traits.gateway, tuple):
            first.setdefault(self.driver.traits.gateway[0], True)
        if self.dns:
            first["dns"] = {"nameservers": self.dns}
        ipam = self._ipam()
        takes = (*self.driver.traits.capabilities, *invoke.traits(ipam["type"]).capabilities)
        capabilities = [field.name for field in takes if field.name in _REQUESTS]
        if capabilities:
            first["capabilities"] = dict.fromkeys(sorted(capabilities), True)
        first["ipam"] = ipam
        return [first, *self._chained()]

    def _ipam(self) -> "dict[str, Any]":
        if not self.ranges:
            return {"type": "dhcp"}
        ipam: dict[str, Any] = {"type": "host-local", "ranges": [[one.to_json()] for one in self.ranges]}
        if not self.internal:
            versions = dict.fromkeys(one.subnet.address.version for one in self.ranges)
            ipam["routes"] = [{"dst": "0.0.0.0/0" if version == 4 else "::/0"} for version in versions]
        return ipam

    def _chained(self) -> "list[dict[str, Any]]":
        plugins: list[dict[str, Any]] = []
        if self.driver.routes:
            if not self.internal:
                plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
            plugins.append({"type": "bandwidth", "capabilities": _LIMITS})
            plugins.append({"type": "firewall", **self._policies()})
        if self.sysctls:
            plugins.append({"type": "tuning", "sysctl": self.sysctls})
        return plugins

    def _policies(self) -> "dict[str, str]":
        """Return the keys of the firewall plugin.  The reference's has only the first one."""
        if not (self.isolated or self.internal):
            return {}
        return {"ingressPolicy": "same-bridge", "forwardPolicy": "none" if self.internal else "published"}

    def set_option(self, text: str) -> None:
        """Set KEY=VALUE of --opt: a key of the driver, docker's or podman's name of it, or sysctl.NAME."""
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise invalid_config(f"--opt {text}: it is not KEY=VALUE")
        if key.startswith(_SYSCTL):
            self.sysctls[key.removeprefix(_SYSCTL)] = value
            return
        field = self.driver.fields.get(_ALIASES.get(key, key))
        if not field or field.type not in (bool, int, str):
            names = sorted(name for name, one in self.driver.fields.items() if one.type in (bool, int, str))
            raise invalid_config(
                f"--opt {text}: the driver {self.driver.name} has no option {key}",
                f"there are: {', '.join(names)}, {_SYSCTL}NAME",
            )
        self.keys[field.name] = _value(field, value, text)


def _value(field: Field, value: str, text: str) -> "bool | int | str":
    try:
        if field.type is bool:
            return _TRUTH[value.lower()]
        return int(value) if field.type is int else value
    except (KeyError, ValueError):
        kind = "true or false" if field.type is bool else "a number"
        raise invalid_config(f"--opt {text}: {value!r} is not {kind}") from None
