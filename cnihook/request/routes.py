# SPDX-License-Identifier: Apache-2.0
"""
The routes that a container requests, and how they change the networks' own routes.

They are added to the configuration of the IPAM plugin, which returns its `routes` in the result.
"""

from cnihook.fast import fastjson
from cnihook.protocol import invoke
from cnihook.runtime import networks
from cnihook.runtime.networks import Network, ipam_type
from cnihook.types.config import LenientConf, NetConf, lookup
from cnihook.types.errors import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from cnihook.fast.address import Address, IPNet
    from cnihook.request.request import NetworkRequest

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_BEHIND = 1024  # a metric higher than that of a route without a metric


def with_requested(
    chosen: "list[Network]", requests: "list[NetworkRequest]", common: "NetworkRequest"
) -> "list[Network]":
    """Return the networks with the requested routes instead of their own to the same destinations.

    If a default route is requested on one network, the other networks get none of this IP version.
    Otherwise the container would use the one of the network that is attached first.
    """
    changed = list(chosen)
    real = [index for index, network in enumerate(chosen) if not network.is_loopback]
    routes = [requested.routes for requested in requests]
    if common.routes:
        if not real:
            raise CniError(INVALID_CONFIG, "a route: the container is on no network")
        routes[real[0]] = [*routes[real[0]], *common.routes]
    defaults = [{dst.address.version for dst, _gateway in each if not dst.prefix} for each in routes]
    for index, network in enumerate(chosen):
        is_real = index in real
        if requests[index].no_default_route or (common.no_default_route and is_real):
            network = _without_default_route(network, {4, 6}, "routes")
        elsewhere = {version for at, each in enumerate(defaults) if at != index for version in each}
        if elsewhere and is_real:
            network = _without_default_route(network, elsewhere)
        if routes[index]:
            network = _with_routes(network, routes[index], defaults[index])
        changed[index] = network
    return changed


def _with_routes(
    network: Network, routes: "list[tuple[IPNet, Address | None]]", defaults: "set[int]"
) -> Network:
    """Return the network with `routes`.  `defaults`: the IP versions for which they hold a default route."""
    added = [{"dst": str(dst), **({"gw": str(gateway)} if gateway else {})} for dst, gateway in routes]
    destinations = {dst.network() for dst, _gateway in routes}

    def change(plugin: "dict[str, Any]", ipam: "dict[str, Any]") -> "dict[str, Any]":
        ipam = _drop_default_route(plugin, ipam, defaults) if defaults else ipam
        own = NetConf(ipam).objects("routes")
        kept = [route.raw for route in own if route.has("table") or _destination(route) not in destinations]
        return {**ipam, "routes": [*kept, *added]}

    return rewritten(network, change, "routes", "a route")


def _destination(route: NetConf) -> "IPNet | None":
    """Return the network that a route of a configuration leads to; None if the IPAM plugin rejects it."""
    try:
        dst = route.network("dst")
    except CniError:
        return None
    return dst.network() if dst else None


def _without_default_route(network: Network, versions: "set[int]", takes: str = "") -> Network:
    """Return the network without the default routes of these IP versions.

    `takes`: as of rewritten(); empty: change any IPAM plugin as far as its configuration allows.  If a
    server assigns the IPv4 routes, they get a metric.
    """

    def change(plugin: "dict[str, Any]", ipam: "dict[str, Any]") -> "dict[str, Any]":
        if 4 in versions and invoke.traits(NetConf(ipam).string("type")).from_server:
            return {"priority": _BEHIND, **ipam}
        return _drop_default_route(plugin, ipam, versions)

    return rewritten(network, change, takes, "a request for no default route")


def _drop_default_route(
    plugin: "dict[str, Any]", ipam: "dict[str, Any]", versions: "set[int]"
) -> "dict[str, Any]":
    """Return `ipam` without default routes of these IP versions; change isDefaultGateway in `plugin`."""
    routes = [route.raw for route in NetConf(ipam).objects("routes")]
    kept = [route for route in routes if _default_version(route) not in versions]
    for key in [key for key in plugin if key.lower() == "isdefaultgateway" and plugin[key] is True]:
        del plugin[key]
        plugin["isGateway"] = True
        for version in sorted(_ip_versions(ipam) - versions):
            if version not in map(_default_version, kept):
                kept.append({"dst": _DEFAULT[version]})
    return {**ipam, "routes": kept} if kept or routes else ipam


def _default_version(route: "dict[str, Any]") -> int:
    """Return the IP version of a default route, 0 for another route."""
    dst = str(lookup(route, "dst") or "")
    return (6 if ":" in dst else 4) if dst.endswith("/0") else 0


def _ip_versions(ipam: "dict[str, Any]") -> "set[int]":
    """Return the versions of the addresses that a configuration of an IPAM plugin names."""
    conf = LenientConf(ipam)
    ranges = [item for each in conf.list("ranges") for item in LenientConf({"set": each}).objects("set")]
    texts = [item.string("subnet") for item in (conf, *ranges)]
    texts += [item.string("address") for item in conf.objects("addresses")]
    return {6 if ":" in text else 4 for text in texts if text}


def rewritten(network: Network, change: "Any", takes: str, what: str) -> Network:
    """Return the network with another `ipam` for each IPAM plugin that takes this (see Traits); empty: each.

    `change` gets a plugin, which it may change, and its `ipam`.  It returns the new `ipam`.  The record of
    the attachment holds the changed network, so DEL uses it, too.
    """
    plugins = []
    is_changed = not takes
    for plugin in network.plugins:
        own_type = ipam_type(plugin)
        if own_type and (not takes or takes in invoke.traits(own_type).takes):
            is_changed = True
            plugin = {key: value for key, value in plugin.items() if key.lower() != "cnihook"}
            ipam = change(plugin, NetConf(plugin).object("ipam").raw)
            plugin = {key: value for key, value in plugin.items() if key.lower() != "ipam"} | {"ipam": ipam}
        plugins.append(plugin)
    if not is_changed:
        types = [each for each in invoke.built_in_types() if takes in invoke.traits(each).takes]
        raise CniError(
            INVALID_CONFIG,
            f"network {network.name} ({network.source}): none of its plugins takes {what}",
            f"the IPAM plugins {' and '.join(types)} do",
        )
    raw = {"cniVersion": network.version, "name": network.name, "plugins": plugins}
    raw |= {key: network.raw[key] for key in ("disableCheck", "disableGC", "cnihook") if key in network.raw}
    changed = networks.from_raw(raw, fastjson.dumps(raw).encode(), network.source)
    changed.requested = [
        *network.requested,
        *(
            path
            for index, plugins in enumerate(zip(network.plugins, changed.plugins, strict=True))
            for path in _changed_keys(f"{index}.", *plugins)
        ),
    ]
    return changed


def _changed_keys(above: str, old: "dict[str, Any]", new: "dict[str, Any]") -> "Iterator[str]":
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if before != after and key.lower() == "ipam":
            yield from _changed_keys(f"{above}{key}.", before or {}, after or {})
        elif before != after:
            yield f"{above}{key}"
