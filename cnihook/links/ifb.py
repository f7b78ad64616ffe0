# SPDX-License-Identifier: Apache-2.0
"""
The ifb of an attachment: a link that delays what another link receives, and has no other use.

A link can only delay what it sends.  So what it receives is redirected to the ifb, which sends it, and
returns it as if it had just been received.
"""

import sys

from cnihook.fast.address import mac_bytes
from cnihook.linux.netlink import attr, u32
from cnihook.linux.rtnl import IFLA_ADDRESS, IFLA_MTU, IFLA_TXQLEN, Link, Rtnl
from cnihook.protocol.call import Call
from cnihook.types.errors import CniError


def names(call: Call) -> "tuple[str, str]":
    """Return two names for the ifb: the reference's, so that its DEL finds it, and the attachment's own.

    The reference has the same name for two attachments of a container to one network.
    """
    # The module that hashlib uses; to import hashlib itself takes 2.5 ms.
    module = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha512")
    digest = module.sha512(f"{call.network}{call.container_id}".encode()).hexdigest()
    return f"bwp{digest[:12]}", f"bwp{_digest(call).hex()}"


def _mac(call: Call) -> str:
    """Return the MAC address that identifies the ifb.  Unlike an alias, it is set at creation."""
    return f"02:{_digest(call)[:5].hex(':')}"


def _digest(call: Call) -> bytes:
    from _blake2 import blake2s

    return blake2s(call.owner.encode(), digest_size=6).digest()


def add(call: Call, rtnl: Rtnl, link: Link, queue: int) -> Link:
    """Make the ifb for a link.  `queue`: its length in packets; 0 for the kernel's default, 32."""
    name, other_name = names(call)
    mac = _mac(call)
    existing = rtnl.find_link(name)
    if existing and existing.mac != mac:
        name = other_name
    attrs = [u32(IFLA_MTU, link.mtu), attr(IFLA_ADDRESS, mac_bytes(mac))]
    if queue:
        attrs.append(u32(IFLA_TXQLEN, queue))
    rtnl.add_link("ifb", name, *attrs)
    return rtnl.link(name)


def of_call(call: Call, rtnl: Rtnl, targets: "set[int] | None") -> "list[Link]":
    """Return this attachment's ifbs.

    `targets`: the links to which the limited link redirects what it receives; None if that link is gone.
    """
    links = [link for name in names(call) if (link := rtnl.find_link(name)) and link.kind == "ifb"]
    return [link for link in links if link.mac == _mac(call) or _is_the_references(call, link, targets)]


def _is_the_references(call: Call, link: Link, targets: "set[int] | None") -> bool:
    """Return True if the reference made the ifb for this attachment.

    By its name, it could belong to another interface of the container on the same network.
    """
    if link.alias or not link.is_up:  # this plugin made it, or is about to finish it
        return False
    listed = _listed(call)
    if listed is not None:
        return link.name in listed
    return targets is None or link.index in targets


def _listed(call: Call) -> "set[str] | None":
    """Return the interfaces that prevResult names; None if prevResult is missing or malformed."""
    try:
        result = call.prev_result
    except CniError:
        return None
    return {interface.name for interface in result.interfaces} if result else None
