# SPDX-License-Identifier: Apache-2.0
"""
Links on a parent link, which CNI calls master: macvlan, ipvlan and VLAN.

The two may be in different namespaces; frames pass between them without a further step.  <linux/if_link.h>
has the numbers.
"""

import _struct as struct

from cnihook.fast.address import mac_bytes
from cnihook.linux.netlink import attr, attributes, read_u32, u16, u32
from cnihook.linux.rtnl import IFLA_ADDRESS, IFLA_LINK, IFLA_MTU, IFLA_NET_NS_FD, Link, Rtnl

IFLA_MACVLAN_MODE, IFLA_MACVLAN_BC_QUEUE_LEN = 1, 7
IFLA_IPVLAN_MODE = 1
IFLA_VLAN_ID = 1

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}


def add(
    rtnl: Rtnl,
    kind: str,
    name: str,
    master: Link,
    netns: int,
    data: "tuple[bytes, ...]",
    *,
    mtu: int = 0,
    mac: str = "",
) -> None:
    """Create a link on the parent link `master`, in the namespace that a descriptor holds.

    `data` is what macvlan(), ipvlan() or vlan() returns.  The name must be free in that namespace and also
    in that of the parent link, which `rtnl` is in: the kernel looks there first, and refuses with EEXIST.
    """
    attrs = [u32(IFLA_LINK, master.index), u32(IFLA_NET_NS_FD, netns)]
    if mtu:
        attrs.append(u32(IFLA_MTU, mtu))
    if mac:
        attrs.append(attr(IFLA_ADDRESS, mac_bytes(mac)))
    rtnl.add_link(kind, name, *attrs, data=data, what=f"create {kind} on {master.name}")


def macvlan(mode: str, bc_queue_len: int = 0) -> "tuple[bytes, ...]":
    """Return the attributes of a macvlan.  With a queue length of 0, the kernel chooses it."""
    queue = (u32(IFLA_MACVLAN_BC_QUEUE_LEN, bc_queue_len),) if bc_queue_len else ()
    return (u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]), *queue)


def ipvlan(mode: str) -> "tuple[bytes, ...]":
    """Return the attributes of an ipvlan.

    The kernel keeps the mode on the parent link: the mode of the last link made on it is the mode of all.
    """
    return (u16(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode]),)


def vlan(vlan_id: int) -> "tuple[bytes, ...]":
    return (u16(IFLA_VLAN_ID, vlan_id),)


def macvlan_mode(link: Link) -> str:
    number = read_u32(attributes(link.info_data).get(IFLA_MACVLAN_MODE))
    return next((name for name, mode in MACVLAN_MODES.items() if mode == number), "unknown")


def ipvlan_mode(link: Link) -> str:
    number = _read_u16(attributes(link.info_data).get(IFLA_IPVLAN_MODE))
    return next((name for name, mode in IPVLAN_MODES.items() if mode == number), "unknown")


def vlan_id(link: Link) -> int:
    return _read_u16(attributes(link.info_data).get(IFLA_VLAN_ID))


def _read_u16(data: "bytes | None") -> int:
    return int(struct.unpack_from("=H", data)[0]) if data else 0
