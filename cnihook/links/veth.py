# SPDX-License-Identifier: Apache-2.0
"""
A veth pair between the host and a container, under a name that can be found again without the container.

The host's end is named after its owner, which is also its alias (`ip link` shows it).  So a DEL finds it
even if namespace and result are lost, and recognizes another owner's.
"""

import errno

from cnihook.fast.undo import Undo
from cnihook.links import settings
from cnihook.linux.netlink import NetlinkError
from cnihook.linux.rtnl import Link
from cnihook.protocol.call import GROUP, Call
from cnihook.types.errors import INTERNAL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = 4  # one in 2^32 is taken by chance; the fourth in a row is not


def host_names(call: Call) -> "Iterator[str]":
    """Return the names that the host's end may have, the likely one first."""
    return names_for(call.owner)


def names_for(owner: str) -> "Iterator[str]":
    from _blake2 import blake2s

    for salt in range(_NAMES):
        digest = blake2s(owner.encode(), digest_size=4, salt=bytes([salt])).hexdigest()
        yield f"veth{digest}"


def add(call: Call, *, mtu: int = 0, mac: str = "", master: int = 0, up: bool = True) -> "tuple[Link, Link]":
    """Make the pair: the host's end up if `up` is true, the container's down.  Return both in this order.

    Raises CniError if there is such an interface already, and does not change that.
    """
    host, sandbox = call.host, call.sandbox
    for name in host_names(call):
        try:
            host.add_veth(name, call.ifname, call.sandbox_ns.fd, mtu=mtu, peer_mac=mac, master=master)
            break
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
        existing = host.find_link(name)
        if not existing:
            raise CniError(
                INTERNAL,
                f"{call.ifname} already exists in {call.netns}",
                "another network of the container has this interface name",
            )
        if existing.alias == call.owner:
            raise CniError(
                INTERNAL,
                f"{call.ifname} of container {call.container_id} exists, with {name} on the host",
                f"`ip link delete {name}` removes it",
            )
    else:
        raise CniError(INTERNAL, f"no free name for the host's end of {call.ifname}")
    with Undo() as undo:
        undo.push(host.delete_link_named, name)
        outer = host.link(name)
        # In a request of its own: one that also raised the link, which has no carrier yet, would make the
        # kernel look at each IPv6 route of the host.
        host.set_link(outer, alias=call.owner)
        if not master:
            # A router advertisement from a container must not change the host's routes.  This comes first,
            # because a running container can send one as soon as the link is up.  A bridge receives all that
            # comes from its ports itself.
            settings.prefer(f"net/ipv6/conf/{name}/accept_ra", 0)
        if up:
            host.set_link(outer, up=True)
        return outer, sandbox.link(call.ifname)


def is_own(link: Link) -> bool:
    """Return True if cnihook made this link of the host: by its group, or for a container by its alias."""
    return link.group >> 16 == GROUP or (link.kind == "veth" and len(link.alias.split(" ")) == 3)


def find_host_end(call: Call) -> "Link | None":
    """Return the host's end of this attachment's pair, also of the reference's; None if it is gone.

    Its name or its peer CNI_IFNAME identifies it, because the alias may be a text of a user or of a tool.
    """
    host = call.host
    for name in host_names(call):
        link = host.find_link(name)
        if link and link.kind == "veth" and not _is_of_another(call, link):
            return link
    sandbox = call.sandbox_if_alive()
    inner = sandbox.find_link(call.ifname) if sandbox else None
    listed = {i.name for i in call.prev_result.interfaces if not i.sandbox} if call.prev_result else set()
    if inner:
        if inner.kind != "veth":
            return None
        # The peer's index is valid on the host only if the other end is there, so the peer must point back.
        outer = host.find_link_by_index(inner.peer_index)
        if not outer or outer.kind != "veth" or outer.peer_index != inner.index:
            return None
        if outer.alias == call.owner:
            return outer  # it was renamed
        is_recorded = not listed or outer.name in listed or inner.mac == call.recorded_mac
        return outer if is_recorded and not _is_of_another(call, outer) else None
    for name in listed:
        link = host.find_link(name)
        if link and link.kind == "veth" and not _is_of_another(call, link):
            return link
    return None


def is_foreign(call: Call) -> bool:
    """Return False if cnihook made this attachment's pair, and on a repair.

    The name of the host's end in prevResult shows it, at no cost; without prevResult, its group does.
    Returns True without a pair, too, because another implementation may have made the other objects.
    """
    if call.request.is_repair:
        return False
    try:
        result = call.prev_result
    except CniError:
        result = None
    if result:
        outer = {interface.name for interface in result.interfaces if not interface.sandbox}
        return outer.isdisjoint(host_names(call))
    try:
        link = find_host_end(call)
    except CniError:
        return True
    return not (link and is_own(link))


def _is_of_another(call: Call, link: Link) -> bool:
    """Return True if the alias is another attachment's owner: it can be one, or the name is made from it."""
    if link.alias in ("", call.owner):
        return False
    return call.is_owner(link.alias) or link.name in names_for(link.alias)


def check_host_end(call: Call, inner: Link) -> Link:
    """Return the host's end of `inner`, the container's.  Raises CniError if it is gone."""
    outer = call.host.find_link_by_index(inner.peer_index)
    if not outer or outer.kind != "veth" or outer.peer_index != inner.index:
        raise CniError(INTERNAL, f"the host's end of {call.ifname} of container {call.container_id} is gone")
    return outer


def set_down(call: Call) -> None:
    """Set the pair down: from now on, nothing comes out of the container.

    This costs nothing, but to delete the pair means to wait.
    """
    link = find_host_end(call)
    if not link:
        return
    try:
        call.host.set_link(link, up=False)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:  # it was just removed, with the container's namespace
            raise


def gc(call: Call, keep: "set[str]") -> None:
    """Remove the pairs of every owner on this network that is not in `keep`."""
    for link in call.host.links():
        if link.kind == "veth" and link.alias.startswith(call.owner_prefix) and link.alias not in keep:
            call.host.delete_link(link)
