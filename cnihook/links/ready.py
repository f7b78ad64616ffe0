# SPDX-License-Identifier: Apache-2.0
"""
Wait until a link or an address carries traffic: the kernel does the last steps later, in work queues.

    link            a veth has a carrier as soon as both ends are up; a link then sends nothing, and a bridge
                    forwards nothing, until linkwatch has activated it
    IPv6 address    does not answer until duplicate address detection has ended, even if that is disabled,
                    and until the kernel has set the local route of the address

On a busy machine that can be later than the first packet, which is then lost and sent again after a second.
Linux 6.8 and later activate a link when a request names it (a dump does not), so one request is enough
there.  An older kernel is asked after 2 ms, then less and less often, at least every 20 ms.
"""

import time

from cnihook.linux.rtnl import (
    IF_OPER_UNKNOWN,
    IF_OPER_UP,
    IFA_F_DADFAILED,
    IFA_F_NODAD,
    IFA_F_TENTATIVE,
    Link,
    Rtnl,
)
from cnihook.types.errors import INTERNAL, CniError, ResourceTakenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cnihook.fast.address import IPNet

_TIMEOUT = 10.0  # seconds, as in the reference; duplicate address detection takes one to two, under load six
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.02  # seconds


def wait_for_link(rtnl: Rtnl, link: Link) -> Link:
    """Wait until a link with a carrier is active; return it as it is then, or after the timeout."""
    current = link
    for is_last in _looks():
        current = rtnl.link(link.name)
        if not current.has_carrier or _is_active(current) or is_last:
            break
    return current


def _looks() -> "Iterator[bool]":
    """Yield again and again, with growing pauses: True for the last time, after the timeout."""
    deadline = time.monotonic() + _TIMEOUT
    pause = _FIRST_PAUSE
    while True:
        yield time.monotonic() > deadline
        time.sleep(pause)
        pause = min(pause * 1.25, _LONGEST_PAUSE)


def _is_active(link: Link) -> bool:
    # Unknown: its carrier has never changed, so it was activated when it was raised.
    # A veth may be raised before its other end gives it a carrier.
    return link.operstate == IF_OPER_UP or (link.operstate == IF_OPER_UNKNOWN and link.kind != "veth")


def wait_for_addresses(rtnl: Rtnl, link: Link, nets: "Iterable[IPNet]") -> None:
    """Wait until the link's IPv6 addresses among `nets` can be used; those of IPv4 can be at once.

    Raises ResourceTakenError if another host on the link has one, and CniError after the timeout.  If a
    virtual link has no carrier, its addresses stay tentative until it has one, so it waits only for those
    with IFA_F_NODAD.  A network card may still negotiate, so for a card it returns after the timeout.
    """
    pending = [net for net in nets if net.address.version == 6]
    if not pending:
        return
    from cnihook.linux import route_lookup  # for IPv6 alone

    for is_last in _looks():
        pending = [net for net in pending if not route_lookup.is_local(rtnl, link, net.address)]
        if not pending:
            return
        present = {address.net: address.flags for address in rtnl.addresses(link)}
        for net in pending:
            if present.get(net, 0) & IFA_F_DADFAILED:
                raise ResourceTakenError(
                    INTERNAL, f"{net} on {link.name}: another host on the link has this address already"
                )
        current = rtnl.link(link.name)
        if link.kind and not current.has_carrier:
            pending = [net for net in pending if present.get(net, 0) & IFA_F_NODAD]
            if not pending:
                return
        if is_last:
            if current.operstate == IF_OPER_UP and any(
                present.get(net, 0) & IFA_F_TENTATIVE for net in pending
            ):
                raise CniError(
                    INTERNAL, f"{link.name}: an IPv6 address is still tentative after {_TIMEOUT:g} s"
                )
            return
