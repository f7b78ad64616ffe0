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

from cnihook.linux import nft, sysctl
from cnihook.sdk.table import FAMILY, NAME, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.0/8"
STAND_IN = "192.0.0.8"  # the dummy address of RFC 7600, which no host has

_OUT, _BACK, _IN = "ports-loopback-out", "ports-loopback-back", "ports-loopback-in"
USES = {_OUT: 1, _BACK: 1, _IN: 1}  # the chains, each with the number of its rules

_HOOKS = {
    _OUT: "filter hook output priority -150",  # after conntrack, before NAT looks up the route
    _BACK: "filter hook prerouting priority -99",  # after NAT, before routing
    _IN: "filter hook input priority 101",  # after NAT
}
# Connections that get another source than 127.0.0.1 in the end, so another program's are not harmed.
_OUTGOING = (
    f"ip saddr {LOOPBACK} ct direction original ct status dnat ct status snat ip saddr set {STAND_IN}"
)
_ANSWER = 'iifname != "lo" ct direction reply ct status dnat'
_RULES = {
    _OUT: _OUTGOING,
    _BACK: f"{_ANSWER} ip daddr {LOOPBACK} ip daddr set ct reply ip daddr",
    _IN: f"{_ANSWER} ct original ip saddr {LOOPBACK} ip daddr set ct original ip saddr",
}

# Around the rules of a NAT chain that send a connection to a container: the route is looked up after these.
BEFORE_NAT = f"ip saddr {LOOPBACK} ip saddr set {STAND_IN}"
AFTER_NAT = f"ip saddr {STAND_IN} ip saddr set ct original ip saddr"

# Of an earlier version: the links of which it has set route_localnet.
_OPENED = "ports-localnet"


def declaration() -> "Iterator[str]":
    for chain, hook in _HOOKS.items():
        yield f"add chain {TABLE} {chain} {{ type {hook} ; }}"
        yield f"flush chain {TABLE} {chain}"
        yield f"add rule {TABLE} {chain} {_RULES[chain]}"


def close_opened() -> None:
    """Set route_localnet back where an earlier version has set it.  Under the lock of the table."""
    links = nft.elements(FAMILY, NAME, _OPENED)
    for key, _comment in links:
        name = key.partition(b"\0")[0].decode(errors="replace")
        sysctl.write_if_present(route_localnet(name), 0)
    if links:
        nft.run(f"delete set {TABLE} {_OPENED}", "close what an earlier version has opened")


def route_localnet(link: str) -> str:
    return f"net/ipv4/conf/{link}/route_localnet"
