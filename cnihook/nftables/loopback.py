# SPDX-License-Identifier: Apache-2.0
"""
Published ports on 127.0.0.1, without route_localnet.

A packet that the host sends from 127.0.0.1 to a container cannot leave the host: the kernel routes this
source address, and an answer to it, on the loopback link only.  The setting route_localnet removes this
limit, also for packets from the link.  Then services on 127.0.0.1 are open to containers as soon as another
program flushes the rules that protect them (CVE-2020-8558).  Here the address is replaced while the kernel
checks it, and the setting stays 0:

    out   before the route is looked up     127.0.0.1 is replaced by a stand-in
          at postrouting                    the stand-in is masqueraded; what is left of it is dropped
    back  after NAT, before routing         127.0.0.1 is replaced by the address that the answer arrived for
          after routing                     and that by 127.0.0.1

NAT rules see only the first packet of a connection, and conntrack remembers its addresses.  The chains here
translate the other packets.  Without these rules nothing is open, and no setting has to be restored.
"""

from cnihook.fast.address import IPNet
from cnihook.linux import nft, nft_objects, sysctl
from cnihook.linux.nft_objects import Rule
from cnihook.nftables.table import FAMILY, NAME

LOOPBACK = IPNet.parse("127.0.0.0/8")
STAND_IN = IPNet.parse("192.0.0.8/32")  # the dummy address of RFC 7600, which no host has

_OUT, _BACK, _IN = "ports-loopback-out", "ports-loopback-back", "ports-loopback-in"
HOOKS = {  # with priorities
    _OUT: ("filter", nft_objects.OUTPUT, -150),  # after conntrack, before NAT looks up the route
    _BACK: ("filter", nft_objects.PRE_ROUTING, -99),  # after NAT, before routing
    _IN: ("filter", nft_objects.INPUT, 101),  # after NAT
}


def _out() -> bytes:
    # Only connections that finally get another source than 127.0.0.1, so another program's stay as they are.
    return (
        nft_objects.sent_by(LOOPBACK)
        + nft_objects.of_direction(nft_objects.ORIGINAL)
        + nft_objects.is_translated(nft_objects.DST_NAT)
        + nft_objects.is_translated(nft_objects.SRC_NAT)
        + nft_objects.set_source(STAND_IN.address)
    )


def _answer() -> bytes:
    return (
        nft_objects.enters_by_another("lo")
        + nft_objects.of_direction(nft_objects.REPLY)
        + nft_objects.is_translated(nft_objects.DST_NAT)
    )


def _back() -> bytes:
    return _answer() + nft_objects.destined(LOOPBACK) + nft_objects.set_destination(nft_objects.REPLY)


def _in() -> bytes:
    return _answer() + nft_objects.opened_from(LOOPBACK) + nft_objects.set_destination(nft_objects.ORIGINAL)


RULES = {_OUT: [Rule(_out)], _BACK: [Rule(_back)], _IN: [Rule(_in)]}


def before_nat() -> bytes:
    """Return the expressions of the rule that comes before those of NAT to a container.

    The kernel looks up the route after these rules, and after_nat() restores the address.
    """
    return nft_objects.sent_by(LOOPBACK) + nft_objects.set_source(STAND_IN.address)


def after_nat() -> bytes:
    return nft_objects.sent_by(STAND_IN) + nft_objects.set_source(None)


# A set of an earlier version: the links whose route_localnet it has enabled.
_OPENED = "ports-localnet"


def close_opened() -> None:
    """Reset route_localnet on links where an earlier version enabled it.  Call it under the table's lock."""
    links = nft.elements(FAMILY, NAME, _OPENED)
    for key, _comment in links:
        name = key.partition(b"\0")[0].decode(errors="replace")
        sysctl.write_if_present(route_localnet(name), 0)
    if links:
        messages = [nft_objects.delete_set(NAME, _OPENED)]
        nft.change(FAMILY, messages, "close what an earlier version has opened")


def route_localnet(link: str) -> str:
    return f"net/ipv4/conf/{link}/route_localnet"
