# SPDX-License-Identifier: Apache-2.0
"""
The syntax of --mdns and of the annotation cnihook.mdns, and the network that serves it.

    --mdns, cnihook.mdns: true                         by the interfaces of the host with a default route
    --mdns=eth0,wlan0, cnihook.mdns: eth0,wlan0        by these
"""

from cnihook.linux.netns import NetNS
from cnihook.protocol import invoke
from cnihook.protocol.call import GROUP
from cnihook.request.resolve import ResolvedNetwork
from cnihook.request.values import refuse
from cnihook.runtime.networks import Network
from cnihook.types.config import LenientConf
from cnihook.types.errors import INVALID_CONFIG, CniError
from cnihook.types.names import check_ifname, shown

_MOST = 16  # interfaces
_TITLE = "multicast DNS"


def parse(text: str) -> "dict[str, list[str]]":
    """Return the interfaces of the LAN as {"uplinks": [...]}; empty if it is not requested."""
    if text.lower() in ("", "true", "1"):
        return {"uplinks": []}
    if text.lower() in ("false", "0"):
        return {}
    uplinks = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if len(uplinks) > _MOST:
        raise refuse(f"mdns {shown(text)}", f"there are more than {_MOST} interfaces")
    for name in uplinks:
        try:
            check_ifname(name)
        except CniError as error:
            raise error.wrapped(f"mdns {shown(text)}") from None
    return {"uplinks": uplinks}


def place(chosen: "list[ResolvedNetwork]", wanted: "dict[str, list[str]]") -> None:
    """Pass the request to the first network that can serve it.  Raises CniError if none can."""
    _check_uplinks(wanted["uplinks"])
    real = [one for one in chosen if not one.network.is_loopback]
    if not real:
        raise CniError(INVALID_CONFIG, f"{_TITLE}: the container is on no network")
    refusals = [_refusal(one.network) for one in real]
    for one, refusal in zip(real, refusals, strict=True):
        if not refusal:
            one.mdns = wanted
            return
    network = real[0].network
    why, hint = refusals[0] or ("", "")
    raise CniError(INVALID_CONFIG, f"{_TITLE}: network {network.name} ({network.source}): {why}", hint)


def _refusal(network: Network) -> "tuple[str, str] | None":
    """Return why a network cannot serve it, and what to do; None if it can."""
    first = LenientConf(network.plugins[0])
    plugin_type = first.string("type")
    traits = invoke.traits(plugin_type)
    if traits.on_parent:
        return f"a container of the plugin {plugin_type} is on the LAN already", "leave the request out"
    if "veth" not in traits.makes:
        return f"the plugin {plugin_type} leads to no interface of the host", "use the plugin bridge or ptp"
    if any(LenientConf(plugin).string("forwardPolicy") == "none" for plugin in network.plugins):
        return "it is internal: its containers have no way out of the host", "use another network"
    if first.raw.get("vlan") or first.raw.get("vlanTrunk"):
        return "its bridge separates VLANs", "use a bridge without VLANs"
    if not traits.is_gateway(first.raw):
        return "its bridge has no gateway, so the host is not in it", 'set "isGateway": true'
    return None


def _check_uplinks(uplinks: "list[str]") -> None:
    if not uplinks:
        return
    host = NetNS.current()
    try:
        for name in uplinks:
            link = host.rtnl.find_link(name)
            if not link:
                from cnihook.fast import similar  # not at the top: for this error only

                hint = similar.hint(name, sorted(each.name for each in host.rtnl.links()))
                raise CniError(INVALID_CONFIG, f"{_TITLE}: the host has no interface {shown(name)}", hint)
            if name == "lo" or link.group >> 16 == GROUP:
                raise CniError(
                    INVALID_CONFIG,
                    f"{_TITLE}: {name} leads to no LAN",
                    "name an interface of the LAN, such as eth0",
                )
    finally:
        host.close()
