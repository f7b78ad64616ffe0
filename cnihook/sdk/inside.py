# SPDX-License-Identifier: Apache-2.0
"""
An interface that is made in the container's namespace and nowhere else, and is known there as this call's.

It bears the owner's words as its alias, as the host's end of a veth pair does: a DEL that comes late must
not take the interface that another network has given the same name since.
"""

from cnihook.linux.rtnl import Link
from cnihook.sdk.call import Call
from cnihook.spec.errors import INTERNAL, CniError


def refuse_taken(call: Call) -> None:
    """CniError if the container has an interface of this name."""
    if call.sandbox.find_link(call.ifname):
        raise CniError(
            INTERNAL,
            f"{call.ifname} already exists in {call.netns}",
            "another network of the container has this interface name",
        )


def delete(call: Call, kind: str) -> None:
    """Remove this call's interface, if it is there: its namespace may be gone, and it may be another's."""
    sandbox = call.sandbox_if_alive()
    link = sandbox.find_link(call.ifname) if sandbox else None
    if sandbox and link and is_own(call, link, kind):
        sandbox.delete_link(link)


def is_own(call: Call, link: Link, kind: str) -> bool:
    # Without an alias: made by the reference, or by one of ours that was killed before it set that.
    return link.kind == kind and link.alias in (call.owner, "")
