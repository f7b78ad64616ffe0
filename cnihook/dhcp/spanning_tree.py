# SPDX-License-Identifier: Apache-2.0
"""
Spanning tree: how long a new port of a bridge forwards nothing.

Such a port listens for one forward delay and learns for another, of 15 seconds each by default.  On a bridge
without spanning tree (stp_state 0) it forwards at once.
"""

from cnihook.linux.netlink import attributes, read_u32
from cnihook.linux.netns import NetNS
from cnihook.linux.rtnl import IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, Link

_FORWARDING = 3  # <linux/if_bridge.h> BR_STATE_FORWARDING
_USER_HZ = 100  # the kernel gives the delay in 1/100 s


def explain(namespace: NetNS, link: Link) -> str:
    """Name the bridge that delays what `link`, in `namespace`, sends; empty if spanning tree is not used.

    `link` is a veth whose other end is a port of a bridge of the host, or is made on a bridge or a port.
    """
    if not link.peer_index:
        return ""
    host = NetNS.current()
    try:
        port = host.rtnl.find_link_by_index(link.peer_index)
        if link.kind == "veth" and port and port.peer_index != link.index:
            return ""  # its other end is in another namespace, where a link has the same number
        bridge = port if port and port.kind == "bridge" else None
        if port and port.master and not bridge:
            bridge = host.rtnl.find_link_by_index(port.master)
        delay = 2 * _forward_delay(bridge) if bridge else 0.0
        if not (port and bridge and delay):
            return ""
        forwards = port is bridge or port.port_state == _FORWARDING
        state = "" if forwards else f"{port.name} does not forward yet: "
        command = f"ip link set {bridge.name} type bridge"
        return (
            f"{state}bridge {bridge.name} has spanning tree, which opens a new port after {delay:g} s; "
            f"`{command} forward_delay 200` makes it 4 s, `{command} stp_state 0` none"
        )
    finally:
        host.close()


def _forward_delay(bridge: Link) -> float:
    """Return the delay in seconds; 0 for a bridge without spanning tree."""
    data = attributes(bridge.info_data)
    if not read_u32(data.get(IFLA_BR_STP_STATE)):
        return 0.0
    return read_u32(data.get(IFLA_BR_FORWARD_DELAY)) / _USER_HZ
