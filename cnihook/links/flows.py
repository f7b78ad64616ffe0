# SPDX-License-Identifier: Apache-2.0
"""
The flows of a container that ends.  No late answer may reach the next container with its address.

Conntrack keeps a flow for minutes, one of TCP for days, and translates its packets without reading the
rules.  So flows are deleted after the container's link and before its address is released.  A flow that
cannot be deleted is reported, and the DEL continues.

On a host without flows this costs 0.02 ms.  Otherwise the kernel walks its whole table.  With the usual
262,144 buckets that takes 0.4 ms, or 5 ms if it has to list the flows.  So all plugins of a chain share one
walk, and only plugins that route for a container request it.
"""

from cnihook.fast import descriptor
from cnihook.fast.errors_text import message_with_notes
from cnihook.links import veth
from cnihook.log import notice
from cnihook.protocol.call import Call
from cnihook.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cnihook.fast.address import Address
    from cnihook.linux.conntrack import Flow
    from cnihook.protocol.call import Invocation, OwedFlows


def addresses(call: Call) -> "list[Address]":
    """Return the attachment's addresses, from the previous result or, if DEL has none, from its link."""
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


def forget(call: Call, addresses: "Iterable[Address]") -> None:
    """Delete the flows that these addresses opened or answer, and those of forget_later().

    A repair restores the container's addresses, so it does not delete their flows.
    """
    _forget(frozenset(() if call.request.is_repair else addresses), call.request.take_flows())


def forget_later(call: Call, answerers: "Iterable[Address]", is_meant: "Callable[[Flow], bool]") -> None:
    """Delete later, of the flows that these addresses answer, those for which `is_meant` is true.

    They are deleted with those of the chain's other plugins, at the latest when the chain has ended.
    """
    call.request.owe_flows((frozenset(answerers), is_meant), settle)


def settle(request: "Invocation") -> None:
    """Delete the flows that the plugins of a chain have left for later."""
    _forget(frozenset(), request.take_flows())


def _forget(ended: "frozenset[Address]", owed: "list[OwedFlows]") -> None:
    if not (ended.union(*(answerers for answerers, _ in owed)) and count()):
        return
    from cnihook.linux import conntrack  # a host without flows need not load it

    def is_ended(flow: "Flow") -> bool:
        if flow.source in rest or flow.answerer in rest:
            return True
        return any(flow.answerer in answerers and is_meant(flow) for answerers, is_meant in owed)

    try:
        rest = frozenset(address for address in ended if not conntrack.delete_of(address))
        owed = [(answerers - ended, is_meant) for answerers, is_meant in owed]
        remaining = rest.union(*(answerers for answerers, _ in owed))
        for flow in conntrack.of(remaining) if remaining else ():
            if is_ended(flow):
                conntrack.delete(flow)
    except OSError as error:
        notice(f"flows of a container that has ended are not deleted: {message_with_notes(error)}")


def count() -> int:
    """Return the number of flows that the host tracks; 0 if the kernel has no conntrack."""
    try:
        return int(descriptor.content("/proc/sys/net/netfilter/nf_conntrack_count"))
    except OSError:
        return 0
