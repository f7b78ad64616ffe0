# SPDX-License-Identifier: Apache-2.0
"""
MAC spoof check (macspoofchk): a container can send only with its own MAC address.

In `table bridge cnihook`, two rules and two sets serve any number of containers:

    set guarded { "veth1a2b3c4d" comment "mynet c1 eth0" }
    set genuine { "veth1a2b3c4d" . aa:bb:cc:dd:ee:ff comment "mynet c1 eth0" }
"""

from cnihook.linux import nft, nft_objects
from cnihook.linux.nft_objects import Rule
from cnihook.protocol import locks
from cnihook.protocol.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FAMILY, _NAME = "bridge", "cnihook"
_CHAIN = "prerouting"
_RULES = [
    Rule(lambda: nft_objects.enters_with_mac("genuine") + nft_objects.verdict(nft_objects.RETURN)),
    Rule(lambda: nft_objects.enters_by_any("guarded") + nft_objects.verdict(nft_objects.DROP)),
]
_PRIORITY = -300  # NF_BR_PRI_NAT_DST_BRIDGED of <linux/netfilter_bridge.h>, which nft calls dstnat


def _declaration() -> "Iterator[nft_objects.Message]":
    pair = nft_objects.concatenated(nft_objects.IFNAME, nft_objects.ETHER_ADDR)
    yield nft_objects.table(_NAME)
    yield nft_objects.value_set(_NAME, "guarded", nft_objects.IFNAME)
    yield nft_objects.value_set(_NAME, "genuine", pair)
    yield nft_objects.chain(_NAME, _CHAIN, "filter", nft_objects.PRE_ROUTING, _PRIORITY)
    yield from nft_objects.replace_rules(_NAME, _CHAIN, _RULES)


def _is_whole() -> bool:
    return nft.chains(_FAMILY, _NAME).get(_CHAIN) == len(_RULES)


def add(call: Call, port: str, mac: str) -> None:
    """Drop what enters the bridge by this port, unless its source is this MAC address."""
    with locks.nft(f"spoof check {call.owner}"):
        what = f"guard {port} against false MAC addresses"
        if not _is_whole():
            nft.change(_FAMILY, [*_declaration()], what)
        name = port.encode().ljust(16, b"\0")  # IFNAMSIZ
        # Each part of a key fills whole words of four bytes.
        sender = bytes.fromhex(mac.replace(":", "")) + bytes(2)
        elements = _removal(lambda name, _owner: name == port)  # the port of a container that is gone
        elements.append(nft.add_element(_NAME, "guarded", name, call.owner))
        elements.append(nft.add_element(_NAME, "genuine", name + sender, call.owner))
        nft.change(_FAMILY, elements, what)


def delete(call: Call) -> None:
    _delete(lambda _name, owner: owner == call.owner, call.owner)


def gc(call: Call, keep: "set[str]") -> None:
    """Remove the guards of every owner on this network that is not in `keep`."""
    _delete(lambda _name, owner: owner.startswith(call.owner_prefix) and owner not in keep, call.network)


def is_set(call: Call) -> bool:
    return any(owner == call.owner for _key, owner in nft.elements(_FAMILY, _NAME, "guarded"))


def _delete(chosen: "Callable[[str, str], bool]", purpose: str) -> None:
    with locks.nft(f"spoof check {purpose}"):
        elements = _removal(chosen)
        if elements:
            nft.change(_FAMILY, elements, "remove a guard against false MAC addresses")
        if nft.chains(_FAMILY, _NAME) and not nft.elements(_FAMILY, _NAME, "guarded"):
            nft.change(_FAMILY, [nft_objects.delete_table(_NAME)], "remove the empty table")


def _removal(chosen: "Callable[[str, str], bool]") -> "list[tuple[int, int, bytes]]":
    elements = []
    for container in ("guarded", "genuine"):
        for key, owner in nft.elements(_FAMILY, _NAME, container):
            name = key[:16].partition(b"\0")[0].decode(errors="replace")
            if chosen(name, owner):
                elements.append(nft.delete_element(_NAME, container, key))
    return elements
