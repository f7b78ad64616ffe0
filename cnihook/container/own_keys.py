# SPDX-License-Identifier: Apache-2.0
"""
Keys of a network's configuration that a running container gets for itself: its MTU, routes and sysctls.

The record holds the configuration with the new values, so that repair and DEL use them.  `requested` in the
record names these keys, because another value in the network's file does not concern the container.
"""

from functools import partial

from cnihook.fast import fastjson
from cnihook.linux import sysctl
from cnihook.protocol import invoke
from cnihook.runtime import attachment
from cnihook.runtime.networks import Network, ipam_type
from cnihook.runtime.pending import Input, network_of
from cnihook.runtime.records import Record
from cnihook.types import Value
from cnihook.types.config import NetConf, lookup
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cnihook.fast.address import Address, IPNet
    from cnihook.runtime.update import Edit

    Path = tuple[str, ...]
    Values = list[tuple[int, Path, Any]]  # (index of the plugin, path, value)
    RequestedRoute = tuple[IPNet, Address | None]


class Keys(Value):
    """The requested values.

    `mtu`: 0 for no change.  `routes_add` and `routes_rm`: (destination, gateway or None).  `sysctls`: by
    name; an empty value removes one.  `takes_default_route`: a default route may be among the routes.
    """

    __slots__ = ("mtu", "routes_add", "routes_rm", "sysctls", "takes_default_route")

    def __init__(self) -> None:
        self.mtu = 0
        self.routes_add: list[RequestedRoute] = []
        self.routes_rm: list[RequestedRoute] = []
        self.sysctls: dict[str, str] = {}
        self.takes_default_route = False


def edits(
    attachments: "list[Record]", networks: "dict[str, Network]", keys: Keys
) -> "dict[str, list[Edit]]":
    """Return the edits of attachments by the paths of their records.

    Raises CniError if it is not clear which network a value is for, and for one that no plugin takes.
    """
    edits_of: dict[str, list[Edit]] = {}
    if keys.mtu:
        record = _only(attachments, f"MTU {keys.mtu}")
        edits_of.setdefault(record.path, []).append(_edit(record, lambda network: _mtu(network, keys.mtu)))
    if keys.sysctls:
        record = _tuned(attachments, networks, next(iter(keys.sysctls)))
        ifname = record.ifname
        edits_of.setdefault(record.path, []).append(
            _edit(record, lambda network: _sysctls(network, ifname, keys.sysctls))
        )
    for record, added, removed in _routed(attachments, networks, keys):
        edits_of.setdefault(record.path, []).append(
            _edit(record, partial(_routes, added=added, removed=removed))
        )
    return edits_of


def _edit(record: Record, values_of: "Callable[[Network], Values]") -> "Edit":
    """Return an edit that sets the values that `values_of` returns for the network as it is then."""

    def edit(old: Input) -> Input:
        network = network_of(old, record)
        values = [
            (index, path, value)
            for index, path, value in values_of(network)
            if _at(network.plugins[index], path) != value
        ]
        if not values:
            return old
        own = dict(old.own)
        requested = [f"{index}.{'.'.join(path)}" for index, path, _value in values]
        earlier = own.get("requested")
        earlier = earlier if isinstance(earlier, list) else []
        own["requested"] = list(dict.fromkeys([*earlier, *requested]))
        return Input(with_values(old.config, values), old.capability_args, own)

    return edit


def _at(raw: "Any", path: "Path") -> "Any":
    for name in path:
        raw = lookup(raw, name) if isinstance(raw, dict) else None
    return raw


def with_values(config: bytes, values: "Values") -> bytes:
    """Return the text of a configuration with other values; None removes a key.

    The index of a plugin is -1 for a key of the network itself.
    """
    raw: Any = fastjson.loads(config.decode())
    for index, path, value in values:
        _set(raw["plugins"][index] if index >= 0 and "plugins" in raw else raw, path, value)
    return fastjson.dumps(raw).encode()


def _set(raw: "dict[str, Any]", path: "Path", value: "Any") -> None:
    """Set a key, or remove it if the value is None.  The key may be there in another case."""
    for name in path[:-1]:
        present = next((key for key in raw if key.lower() == name.lower()), name)
        raw = raw.setdefault(present, {})
    for key in [key for key in raw if key.lower() == path[-1].lower()]:
        del raw[key]
    if value is not None:
        raw[path[-1]] = value


def _only(attachments: "list[Record]", what: str) -> Record:
    if len(attachments) == 1:
        return attachments[0]
    names = ", ".join(record.network for record in attachments)
    raise CniError(
        INVALID_CONFIG,
        f"{what}: the container is on {len(attachments)} networks",
        f"name one with --network: {names}" if names else "",
    )


# MTU and sysctls


def _mtu(network: Network, mtu: int) -> "Values":
    """Return the keys of the interface plugin, and of each plugin that sets an MTU after it."""
    values: Values = [(0, ("mtu",), mtu)]
    for index, plugin in enumerate(network.plugins):
        if index and invoke.is_built_in(plugin["type"]):
            values += [
                (index, path, mtu) for path in (("mtu",), ("args", "cni", "mtu")) if _at(plugin, path)
            ]
    return values


def _tuned(attachments: "list[Record]", networks: "dict[str, Network]", key: str) -> Record:
    """Return the first attachment with a plugin for sysctls."""
    for record in attachments:
        if any(map(_has_sysctls, networks[record.path].plugins)):
            return record
    where = ", ".join(record.network for record in attachments)
    able = next(name for name in invoke.built_in_types() if invoke.traits(name).keeps_sysctls)
    raise CniError(
        INVALID_CONFIG,
        f"sysctl {key}: no network of it has the plugin {able}: {where}",
        f'add {{"type": "{able}"}} to its plugins; then detach the container, and attach it again',
    )


def _has_sysctls(plugin: "dict[str, Any]") -> bool:
    return invoke.traits(plugin["type"]).keeps_sysctls


def _sysctls(network: Network, ifname: str, wanted: "dict[str, str]") -> "Values":
    index = next(at for at, plugin in enumerate(network.plugins) if _has_sysctls(plugin))
    own = NetConf(network.plugins[index]).object("sysctl").raw
    names = {_name_of(key, ifname): key for key in own}  # one setting may be written in several ways
    return [
        # A key has dots itself, so it is one part of the path.
        (index, ("sysctl", names.get(_name_of(key, ifname), key)), value or None)
        for key, value in wanted.items()
    ]


def _name_of(key: str, ifname: str) -> str:
    return sysctl.name_of(key).replace("IFNAME", ifname, 1)


# Routes


def _routed(
    attachments: "list[Record]", networks: "dict[str, Network]", keys: Keys
) -> "list[tuple[Record, list[RequestedRoute], list[RequestedRoute]]]":
    """Return each attachment with the routes that are added and removed there."""
    changes: dict[str, tuple[list[RequestedRoute], list[RequestedRoute]]] = {
        record.path: ([], []) for record in attachments
    }
    for route in keys.routes_add:
        _refuse_default(route, keys)
        changes[_network_of_route(attachments, networks, route).path][0].append(route)
    for route in keys.routes_rm:
        _refuse_default(route, keys)
        for record in attachments:
            if any(_is_like(item, route) for item in routes_of(networks[record.path].plugins[0])):
                changes[record.path][1].append(route)
            elif not route[0].prefix and _sets_default_route(networks[record.path]):
                raise CniError(
                    INVALID_CONFIG,
                    f"network {record.network}: its plugin sets the default route, by isDefaultGateway",
                    "detach the container, and attach it again with --no-default-route",
                )
    chosen = [(record, *changes[record.path]) for record in attachments if any(changes[record.path])]
    for record, _added, _removed in chosen:
        _refuse_unroutable(networks[record.path])
    return chosen


def _refuse_default(route: "RequestedRoute", keys: Keys) -> None:
    if not route[0].prefix and not keys.takes_default_route:
        raise CniError(INVALID_CONFIG, f"route {route[0]}: it is a default route", "add --default-route")


def _refuse_unroutable(network: Network) -> None:
    for plugin in network.plugins[1:]:
        if invoke.traits(plugin["type"]).moves_routes:
            raise CniError(
                INVALID_CONFIG,
                f"network {network.name}: its plugin {plugin['type']} has moved the routes to another table",
                "detach the container, and attach it again with --route",
            )
    own = ipam_type(network.plugins[0])
    if not own or "routes" not in invoke.traits(own).takes:
        types = [each for each in invoke.built_in_types() if "routes" in invoke.traits(each).takes]
        raise CniError(
            INVALID_CONFIG,
            f"network {network.name}: its IPAM plugin {own or '(none)'} takes no route",
            f"the IPAM plugins {' and '.join(types)} do",
        )


def _network_of_route(
    attachments: "list[Record]", networks: "dict[str, Network]", route: "RequestedRoute"
) -> Record:
    dst, gateway = route
    if gateway is None or gateway.is_link_local:
        return _only(attachments, f"route {dst} without a gateway in a subnet")
    for record in attachments:
        result = attachment.result_of(networks[record.path], record)
        for ip in result.ips if result else ():
            if ip.net.address.version == gateway.version and gateway in ip.net:
                return record
    where = ", ".join(record.network for record in attachments)
    raise CniError(INVALID_CONFIG, f"route {dst}: {gateway} is in no subnet of the container, on {where}")


def routes_of(plugin: "dict[str, Any]") -> "list[dict[str, Any]]":
    """Return the routes in the configuration of a plugin."""
    return [route.raw for route in NetConf(plugin).object("ipam").objects("routes")]


def _is_like(item: "dict[str, Any]", route: "RequestedRoute") -> bool:
    """Return True if an item of a configuration is this route; a route without a gateway is like any."""
    conf = NetConf(item)
    dst, gateway = conf.network("dst"), conf.address("gw")
    if conf.has("table") or dst is None or dst.network() != route[0].network():
        return False
    return route[1] in (None, gateway)


def _sets_default_route(network: Network) -> bool:
    return lookup(network.plugins[0], "isDefaultGateway") is True


def _routes(network: Network, added: "list[RequestedRoute]", removed: "list[RequestedRoute]") -> "Values":
    kept = [
        item for item in routes_of(network.plugins[0]) if not any(_is_like(item, route) for route in removed)
    ]
    for dst, gateway in added:
        item = {"dst": str(dst), **({"gw": str(gateway)} if gateway else {})}
        if not any(_is_like(one, (dst, gateway)) for one in kept):
            kept.append(item)
    return [(0, ("ipam", "routes"), kept)]
