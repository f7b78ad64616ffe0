# SPDX-License-Identifier: Apache-2.0
"""
MAC spoof check (macspoofchk): a container sends with its own MAC address or not at all.

In `table bridge cnihook`, two rules and two sets serve any number of containers:

    set guarded { "veth1a2b3c4d" comment "mynet c1 eth0" }
    set genuine { "veth1a2b3c4d" . aa:bb:cc:dd:ee:ff comment "mynet c1 eth0" }
"""

from cnihook.linux import nft, nft_objects
from cnihook.linux.flock import Lock
from cnihook.sdk.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = "bridge cnihook"
_FAMILY, _NAME = TABLE.split()
_CHAIN, _RULES = "prerouting", 2

_BASE = f"""\
add table {TABLE}
add set {TABLE} guarded {{ type ifname ; }}
add set {TABLE} genuine {{ type ifname . ether_addr ; }}
add chain {TABLE} prerouting {{ type filter hook prerouting priority dstnat ; }}
flush chain {TABLE} prerouting
add rule {TABLE} prerouting iifname . ether saddr @genuine return
add rule {TABLE} prerouting iifname @guarded drop
"""


def acquire() -> None:
    """Open libnftables if add() will declare anything."""
    if not _is_whole():
        nft.load()


def _is_whole() -> bool:
    return nft.chains(_FAMILY, _NAME).get(_CHAIN) == _RULES


def add(call: Call, port: str, mac: str) -> None:
    """Let through what enters the bridge by this port only if it comes from this MAC address."""
    with Lock("nft", purpose=f"spoof check {call.owner}"):
        what = f"guard {port} against false MAC addresses"
        if not _is_whole():
            nft.run(_BASE, what)
        name = port.encode().ljust(16, b"\0")  # IFNAMSIZ
        # Each part of a key fills whole words of four bytes.
        sender = bytes.fromhex(mac.replace(":", "")) + bytes(2)
        elements = _removal(lambda name, _owner: name == port)  # the port of a container that is gone
        elements.append(nft.new_element(_NAME, "guarded", name, call.owner))
        elements.append(nft.new_element(_NAME, "genuine", name + sender, call.owner))
        nft.change(_FAMILY, elements, what)


def delete(call: Call) -> None:
    _delete(lambda _name, owner: owner == call.owner, call.owner)


def gc(call: Call, keep: "set[str]") -> None:
    """Remove the guards of every owner on this network that is not in `keep`."""
    _delete(lambda _name, owner: owner.startswith(call.owner_prefix) and owner not in keep, call.network)


def is_set(call: Call) -> bool:
    return any(owner == call.owner for _key, owner in nft.elements(_FAMILY, _NAME, "guarded"))


def _delete(chosen: "Callable[[str, str], bool]", purpose: str) -> None:
    with Lock("nft", purpose=f"spoof check {purpose}"):
        elements = _removal(chosen)
        if elements:
            nft.change(_FAMILY, elements, "remove a guard against false MAC addresses")
        if nft.chains(_FAMILY, _NAME) and not nft.elements(_FAMILY, _NAME, "guarded"):
            nft.change(_FAMILY, [nft_objects.delete_table(_NAME)], "remove the empty table")


def _removal(chosen: "Callable[[str, str], bool]") -> "list[tuple[int, int, bytes]]":
    found = []
    for container in ("guarded", "genuine"):
        for key, owner in nft.elements(_FAMILY, _NAME, container):
            name = key[:16].partition(b"\0")[0].decode(errors="replace")
            if chosen(name, owner):
                found.append(nft.old_element(_NAME, container, key))
    return found
