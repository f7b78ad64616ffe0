# SPDX-License-Identifier: Apache-2.0
"""
An interface that exists in the container's namespace only, and is recognized there as this call's.

The alias is the owner, as for the host's end of a veth pair.  So a late DEL does not remove the interface
that another network has made with the same name since.
"""

from cnihook.linux.rtnl import Link
from cnihook.protocol.call import Call
from cnihook.types.errors import INTERNAL, CniError


def refuse_taken(call: Call) -> None:
    """Raise CniError if the container has an interface of this name."""
    if call.sandbox.find_link(call.ifname):
        raise CniError(
            INTERNAL,
            f"{call.ifname} already exists in {call.netns}",
            "another network of the container has this interface name",
        )


def delete(call: Call, kind: str, *names: str) -> None:
    """Remove this call's links.  `names`: names that its link can have, other than CNI_IFNAME.

    The namespace may be gone, and CNI_IFNAME may be another network's.
    """
    sandbox = call.sandbox_if_alive()
    if not sandbox:
        return
    for link in sandbox.links():
        if link.kind == kind and _is_own(call, link, names):
            call.remove_link(sandbox, link)


def _is_own(call: Call, link: Link, names: "tuple[str, ...]") -> bool:
    if link.alias == call.owner:
        return True
    if link.name != call.ifname and link.name not in names:
        return False
    # Without an alias: made by the reference, or by a process that was killed before it set one.
    if not link.alias:
        return True
    # With another alias: if a user or a tool wrote it, and the link has the recorded MAC address.
    return not call.is_owner(link.alias) and call.recorded_mac in ("", link.mac)
