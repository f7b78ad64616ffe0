# SPDX-License-Identifier: Apache-2.0
"""
Settings of links that rtnetlink has, too.

A path below /proc/sys/net costs more with each container: the kernel keeps the entries of all namespaces in
one list by name, and finds the caller's by comparing them one by one.  That was 0.26 ms for each path on a
host with 1,000 containers.  <linux/ip.h>, <linux/if_link.h> and <linux/netconf.h> give the numbers.
"""

import _struct as struct
from _socket import AF_INET, AF_INET6, AF_UNSPEC

from cnihook.linux.netlink import attr, attributes, nested, u32
from cnihook.linux.rtnl import IFLA_AF_SPEC, RTM_NEWLINK, Link, Rtnl

_IFLA_INET_CONF = 1
_ARP_NOTIFY = 22  # IPV4_DEVCONF_ARP_NOTIFY
_RTM_GETNETCONF = 82
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2
_ALL = -1  # NETCONFA_IFINDEX_ALL
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_FAMILIES = {4: AF_INET, 6: AF_INET6}


def notify_by_arp(rtnl: Rtnl, link: Link) -> None:
    """Make the kernel announce the IPv4 addresses of a link when it goes up."""
    name = f"net/ipv4/conf/{link.name}/arp_notify"
    conf = nested(_IFLA_INET_CONF, u32(_ARP_NOTIFY, 1))
    body = _IFINFO.pack(AF_UNSPEC, 0, link.index, 0, 0) + nested(IFLA_AF_SPEC, nested(AF_INET, conf))
    rtnl.request(RTM_NEWLINK, 0, body, f"set sysctl {name} to 1")


def forwards(rtnl: Rtnl, version: int) -> bool:
    """Return True if the namespace forwards packets of this IP version: net/ipv4/ip_forward and the like.

    Raises NetlinkError if the kernel lacks the version.
    """
    body = struct.pack("=B3x", _FAMILIES[version]) + attr(_NETCONFA_IFINDEX, struct.pack("=i", _ALL))
    (answer,) = rtnl.request(_RTM_GETNETCONF, 0, body, f"read whether IPv{version} is forwarded")
    (value,) = struct.unpack_from("=i", attributes(answer, 4)[_NETCONFA_FORWARDING])
    return bool(value)
