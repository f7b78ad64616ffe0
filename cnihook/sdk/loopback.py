# SPDX-License-Identifier: Apache-2.0
"""
Published ports on 127.0.0.1, without route_localnet.

What the host sends from 127.0.0.1 to a container cannot leave: the kernel routes such a source, and an
answer to it, on the loopback link only.  The setting route_localnet lifts that, for packets from the link
too, so services on 127.0.0.1 are open to containers as soon as another program flushes the rules that guard
them (CVE-2020-8558).  Here the address is replaced where the kernel looks at it, and the setting stays 0:

    out   before the route is looked up     127.0.0.1 is replaced by a stand-in
          at postrouting                    the stand-in is masqueraded; what is left of it is dropped
    back  after NAT, before routing         127.0.0.1 is replaced by the address that the answer arrived for
          after routing                     and that by 127.0.0.1

NAT rules see the first packet of a connection, and conntrack remembers its addresses; the chains here serve
the others.  Without the rules nothing is open, and nothing is left behind.
"""

from cnihook.lean.address import IPNet
from cnihook.linux import nft, nft_objects, sysctl
from cnihook.sdk.table import FAMILY, NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = IPNet.parse("127.0.0.0/8")
STAND_IN = IPNet.parse("192.0.0.8/32")  # the dummy address of RFC 7600, which no host has

_OUT, _BACK, _IN = "ports-loopback-out", "ports-loopback-back", "ports-loopback-in"
USES = {_OUT: 1, _BACK: 1, _IN: 1}  # the chains, each with the number of its rules

_HOOKS = {  # with priorities
    _OUT: (nft_objects.OUTPUT, -150),  # after conntrack, before NAT looks up the route
    _BACK: (nft_objects.PRE_ROUTING, -99),  # after NAT, before routing
    _IN: (nft_objects.INPUT, 101),  # after NAT
}


def declaration() -> "Iterator[nft_objects.Message]":
    for chain, hook in _HOOKS.items():
        yield nft_objects.chain(NAME, chain, "filter", *hook)
        yield nft_objects.flush(NAME, chain)
    # Connections that get another source than 127.0.0.1 in the end, so another program's are not harmed.
    yield nft_objects.rule(
        NAME,
        _OUT,
        nft_objects.sent_by(LOOPBACK),
        nft_objects.of_direction(nft_objects.ORIGINAL),
        nft_objects.is_translated(nft_objects.DST_NAT),
        nft_objects.is_translated(nft_objects.SRC_NAT),
        nft_objects.set_source(STAND_IN.address),
    )
    answer = (
        nft_objects.enters_by_another("lo"),
        nft_objects.of_direction(nft_objects.REPLY),
        nft_objects.is_translated(nft_objects.DST_NAT),
    )
    back = nft_objects.destined(LOOPBACK) + nft_objects.set_destination(nft_objects.REPLY)
    yield nft_objects.rule(NAME, _BACK, *answer, back)
    into = nft_objects.opened_from(LOOPBACK) + nft_objects.set_destination(nft_objects.ORIGINAL)
    yield nft_objects.rule(NAME, _IN, *answer, into)


def before_nat() -> bytes:
    """Expressions of a rule before those of a NAT chain that send a connection to a container.

    The route is looked up after these, and after_nat() restores the address.
    """
    return nft_objects.sent_by(LOOPBACK) + nft_objects.set_source(STAND_IN.address)


def after_nat() -> bytes:
    return nft_objects.sent_by(STAND_IN) + nft_objects.set_source(None)


# Of an earlier version: the links of which it has set route_localnet.
_OPENED = "ports-localnet"


def close_opened() -> None:
    """Set route_localnet back where an earlier version has set it.  Under the lock of the table."""
    links = nft.elements(FAMILY, NAME, _OPENED)
    for key, _comment in links:
        name = key.partition(b"\0")[0].decode(errors="replace")
        sysctl.write_if_present(route_localnet(name), 0)
    if links:
        messages = [nft_objects.delete_set(NAME, _OPENED)]
        nft.change(FAMILY, messages, "close what an earlier version has opened")


def route_localnet(link: str) -> str:
    return f"net/ipv4/conf/{link}/route_localnet"
