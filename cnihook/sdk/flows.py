# SPDX-License-Identifier: Apache-2.0
"""
Flows of a container that ends.  No late answer may reach the next container that has its address.

Conntrack keeps a flow for minutes, of TCP for days, and translates what belongs to it without a look at the
rules.  So flows are deleted after the container's link and before its address is released.  A flow that
cannot be deleted is reported, and a DEL goes on.

Where the host has no flow at all, it costs 0.02 ms.  Else there is one dump of conntrack for each address,
5 ms with the kernel's usual 262,144 buckets, and only plugins that route for a container ask for it.
"""

from cnihook.lean.words import describe
from cnihook.log import notice
from cnihook.sdk import veth
from cnihook.sdk.call import Call
from cnihook.spec.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnihook.lean.address import Address
    from cnihook.linux.conntrack import Flow


def addresses(call: Call) -> "list[Address]":
    """Return the addresses of the attachment: by the previous result, which DEL may lack, or by its link."""
    if call.prev_result:
        return [ip.net.address for ip in call.prev_result.ips]
    try:
        sandbox = call.sandbox_if_alive()
    except CniError:
        return []  # DEL continues, and fails at a step that needs the namespace
    link = sandbox.find_link(call.ifname) if sandbox else None
    port = veth.find_host_end(call) if link else None
    # The path may lead to the namespace of another container, whose link has another end.
    if not (sandbox and link and port and link.peer_index == port.index):
        return []
    present = [each.net.address for each in sandbox.addresses(link)]
    return [address for address in present if not address.is_link_local]


def forget_opened(call: Call, sources: "Iterable[Address]") -> None:
    """Delete the flows that these addresses opened, unless a repair gives the container its address back."""
    if not call.request.is_repair:
        _forget(sources, lambda flow: True, opened=True)


def forget_answered(answerers: "Iterable[Address]", is_meant: "Callable[[Flow], bool]") -> None:
    """Delete those that are meant of the flows that these addresses answer."""
    _forget(answerers, is_meant, opened=False)


def _forget(addresses: "Iterable[Address]", is_meant: "Callable[[Flow], bool]", *, opened: bool) -> None:
    if not has_any():
        return
    from cnihook.linux import conntrack  # a host without flows need not load it

    find = conntrack.opened_by if opened else conntrack.answered_by
    try:
        for address in addresses:
            for flow in find(address):
                if is_meant(flow):
                    conntrack.delete(flow)
    except OSError as error:
        notice(f"flows of a container that has gone stay: {describe(error)}")


def has_any() -> bool:
    """False if the host keeps track of no flow at all, or the kernel has no conntrack."""
    try:
        with open("/proc/sys/net/netfilter/nf_conntrack_count", "rb") as file:
            return file.read().strip() != b"0"
    except OSError:
        return False
